from pathlib import Path

import pytest

from defect_hub.cli import main


def test_build_prints_a_report_and_problems_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "steelsynth"
    assert main(["data", "build", "steelsynth", "--n", "4", "--out", str(out)]) == 0
    assert capsys.readouterr().out.startswith(f"{out}: train 3, val 1 images, digest ")
    assert main(["data", "build", "tadd", "--raw", str(tmp_path / "none"), "--out", str(out)]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: {tmp_path / 'none'}: folder: does not exist. Check the path of the raw data")
    assert (out / "README.md").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["build", "steelsynth", "--n", "1", "--out", "out"], "error: steelsynth needs at least 2 images"),
        (["build", "tadd", "--subsets", "XY", "--raw", ".", "--out", "out"], "error: unknown set XY"),
        (
            ["build", "steeldefectx", "--raw", ".", "--out", "out"],
            "error: class_descriptions.json: JSON: cannot be read",
        ),
        (["prepare", "none"], "error: none: folder: is not a built data set"),
    ],
)
def test_bad_input(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", *arguments]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert errors[0].startswith(message)


def test_verbs_are_required() -> None:
    with pytest.raises(SystemExit) as caught:
        main(["data"])
    assert caught.value.code == 2
