import resource
import subprocess
import sys

import pytest

from defect_hub.train.whole_file import write_whole


def test_a_file_is_replaced(tmp_path):
    path = tmp_path / "log.jsonl"
    for text in ("one\n", "größer\n"):
        write_whole(path, text)
        assert path.read_text(encoding="utf-8") == text
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text("earlier")
    code = (
        "import sys; from pathlib import Path; from defect_hub.train.whole_file import write_whole; "
        "write_whole(Path(sys.argv[1]), 'x' * 5000)"
    )

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    with pytest.raises(subprocess.CalledProcessError) as failed:
        subprocess.run(
            [sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True, preexec_fn=limit
        )
    assert "File too large" in failed.value.stderr
    assert path.read_text() == "earlier"
