import json
import os
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image
from transformers import pipeline

from defect_hub.embedded import EMBEDDED_CHECKPOINT
from defect_hub.train.predict import main
from defect_hub.train.prediction import run, shards
from defect_hub.train.signals import INTERRUPTED_EXIT_CODE
from tests.train.stub_prediction import StubPipeline, die_at, launch, write_images


@pytest.fixture(scope="module")
def pipe():
    return pipeline("defect-diagnosis", model=str(EMBEDDED_CHECKPOINT))


@pytest.fixture
def stub(tmp_path, monkeypatch):
    """A model that costs nothing, and counts the images it is shown."""
    stub = StubPipeline(log=tmp_path / "diagnosed.txt")
    monkeypatch.setattr(run, "pipeline", lambda *args, **kwargs: stub)
    return stub


@pytest.fixture
def images(tmp_path):
    """A folder of 50 images."""
    write_images(tmp_path / "images", 50)
    return tmp_path / "images"


def command(data: Path, out: Path, *options: str) -> list[str]:
    return ["--model", str(EMBEDDED_CHECKPOINT), "--data", str(data), "--out", str(out), *options]


def load(out: Path, split: str = "test") -> datasets.Dataset:
    return datasets.load_dataset(str(out), split=split)


def files(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "data").iterdir())}


def check_equal(found: dict, record: dict) -> None:
    """Rows against records of the pipeline, but for the last bits, which depend on the size of the batch."""
    assert found["score"] == pytest.approx(record["score"], abs=1e-5)
    assert (np.asarray(found["mask"]) != record["mask"]).mean() < 1e-3
    for name in ("is_defective", "threshold", "description", "text_source", "unsupported_claims"):
        assert found[name] == record[name]
    if record["score_std"] is not None:
        assert found["score_std"] == pytest.approx(record["score_std"], abs=1e-4)


@pytest.fixture(scope="module")
def few(rows, tmp_path_factory):
    """A data set of six rows, normal and defective, in a folder, and the rows."""
    folder = tmp_path_factory.mktemp("few")
    few = rows.select(range(6))
    few.to_parquet(folder / "test.parquet")
    return folder, few


@pytest.fixture(scope="module")
def records(few, pipe):
    """What the pipeline says of these rows, one by one."""
    return [pipe(row["image"], object_name=row["object_name"]) for row in few[1]]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_rows_are_the_records_of_the_pipeline(few, records, tmp_path, batch_size):
    (data, rows), out = few, tmp_path / "out"
    assert main(command(data, out, "--maps", "--batch-size", str(batch_size))) == 0
    found = load(out)
    assert found["row"] == list(range(len(rows)))
    for name in ("image_id", "object_name", "sha256"):
        assert found[name] == rows[name]
    assert found["error"] == [None] * len(rows)
    assert len(set(found["is_defective"])) == 2
    for row, record in zip(found, records, strict=True):
        check_equal(row, record)
        assert row["mask"].mode == "L"
        np.testing.assert_allclose(np.asarray(row["anomaly_map"]) / 65535, record["anomaly_map"], atol=1e-4)
        assert [region["box"] for region in row["regions"]] == [region["box"] for region in record["regions"]]
        attributes = record["attributes"]
        if attributes is None:
            assert row["attributes"] is None
        else:
            cells = [[part["cell"], part["fraction"]] for part in row["attributes"]["position"]]
            assert [cell for cell, _ in cells] == [cell for cell, _ in attributes["position"]]
            assert row["attributes"]["shape"] == attributes["shape"]
            assert row["attributes"]["contrast"] == pytest.approx(attributes["contrast"], abs=0.1)


def test_references_are_those_of_the_pipeline(few, rows, pipe, tmp_path):
    references = [row["image"] for row in rows if not row["is_defective"]][:2]
    for number, image in enumerate(references):
        image.save(tmp_path / f"ok{number}.png")
    options = ("--no-describe", "--reference", str(tmp_path / "ok0.png"), str(tmp_path / "ok1.png"))
    assert main(command(few[0], tmp_path / "out", *options)) == 0
    for row, source in zip(load(tmp_path / "out"), few[1], strict=True):
        record = pipe(source["image"], object_name=source["object_name"], reference_images=references, describe=False)
        check_equal(row, record)
    record = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [reference["file"] for reference in record["references"]] == ["ok0.png", "ok1.png"]
    assert str(tmp_path) not in json.dumps(record)


def test_unusable_images_do_not_stop_the_others(images, stub, tmp_path):
    broken = images / "line 0" / "00010.png"
    broken.write_bytes(broken.read_bytes()[:40])
    (images / "a.JPG").write_bytes(b"no image")
    (images / "b.tif").symlink_to(tmp_path / "nowhere")
    Image.new("L", (4, 4)).save(images / "c.png")
    Image.new("F", (16, 16)).save(images / "d.tiff")
    (images / ".hidden.png").write_bytes(b"")
    (images / "notes.txt").write_text("no image")
    out = tmp_path / "out"
    assert main(command(images, out, "--object", "plate", "--batch-size", "4")) == 0
    found = load(out)
    assert found["image_id"][:5] == ["a.JPG", "b.tif", "c.png", "d.tiff", "line 0/00000.png"]
    errors = {row["image_id"]: row["error"] for row in found if row["error"]}
    assert errors.keys() == {"a.JPG", "b.tif", "c.png", "d.tiff", "line 0/00010.png"}
    assert all("\n" not in error and str(tmp_path) not in error and " at 0x" not in error for error in errors.values())
    assert "4x4 px" in errors["c.png"]
    assert len(found) == 54
    usable = [row for row in found if row["error"] is None]
    assert stub.diagnosed() == len(usable) == 49
    for row in usable:
        assert row["score"] == pytest.approx(int(row["image_id"][-9:-4]) / 255)
        assert row["object_name"] == "plate"
    assert all(row["score"] is row["mask"] is row["regions"] is None for row in found if row["error"])
    assert json.loads((out / "predictions.json").read_text())["errors"] == 5


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_write_what_one_writes(images, stub, tmp_path, processes):
    options = ("--batch-size", "4")  # 50 rows in 4 parts
    assert launch(command(images, tmp_path / "one", *options), stub) == [0]
    assert launch(command(images, tmp_path / "more", *options), stub, processes) == [0] * processes
    assert stub.diagnosed() == 100
    assert files(tmp_path / "one") == files(tmp_path / "more")


def test_more_processes_than_rows(stub, tmp_path):
    write_images(tmp_path / "images", 2)
    assert launch(command(tmp_path / "images", tmp_path / "out"), stub, 3) == [0, 0, 0]
    assert load(tmp_path / "out")["row"] == [0, 1]


@pytest.mark.parametrize("workers", ["0", pytest.param("2", marks=pytest.mark.slow)])
def test_killed_runs_go_on_without_repeating_complete_chunks(images, stub, tmp_path, workers):
    out, options = tmp_path / "out", ("--batch-size", "4", "--num-workers", workers)
    killed = StubPipeline(die_at(6), stub.log)
    assert launch(command(images, out, *options), killed) == [-signal.SIGKILL]
    kept = sum(
        chunk.stop - chunk.start for of in shards.chunks_of(out / ".unfinished/chunks").values() for chunk in of
    )
    assert workers == "2" or kept == 16
    before = stub.diagnosed()
    assert launch(command(images, out, *options), stub, 2) == [0, 0]
    assert stub.diagnosed() == before + 50 - kept
    assert not (out / ".unfinished").exists()
    assert launch(command(images, tmp_path / "whole", "--batch-size", "4"), stub) == [0]
    assert files(out) == files(tmp_path / "whole")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("workers", ["0", pytest.param("2", marks=pytest.mark.slow)])
def test_signals_end_a_run_with_all_that_was_done(images, stub, tmp_path, number, workers):
    out, options = tmp_path / "out", ("--batch-size", "4", "--num-workers", workers)
    stopped = StubPipeline(die_at(6, number), stub.log)
    assert launch(command(images, out, *options), stopped) == [INTERRUPTED_EXIT_CODE]
    assert stub.diagnosed() == 24
    assert not list(out.rglob("*.tmp"))
    assert launch(command(images, out, *options), stub, 2) == [0, 0]
    assert stub.diagnosed() == 50
    assert load(out)["row"] == list(range(50))


def test_full_disk_is_said_and_the_same_command_goes_on(images, stub, tmp_path, capfd):
    out = tmp_path / "out"
    write_images(images, 200, side=64)
    assert launch(command(images, out, "--batch-size", "64", "--maps"), stub, limit=30_000) == [2]
    error = capfd.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: {out}: cannot be written (")
    assert error.endswith("Mend that; the same command then goes on")
    assert not list(out.rglob("*.tmp"))
    assert main(command(images, out, "--batch-size", "64", "--maps")) == 0
    assert len(load(out)) == 200


def test_another_run_in_the_same_folder_is_refused_by_name(images, stub, tmp_path, capsys):
    out = tmp_path / "out"
    assert launch(command(images, out, "--batch-size", "4"), StubPipeline(die_at(6), stub.log)) == [-signal.SIGKILL]
    for _ in ("unfinished", "finished"):
        assert main(command(images, out, "--threshold", "0.7", "--maps")) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert (
            "holds predictions of another run: threshold (null there, 0.7 here), maps (false there, true here)"
            in error
        )
        assert main(command(images, out, "--batch-size", "8")) == 0  # moves at most the last bits
    before = stub.diagnosed()
    (images / "new.png").write_bytes((images / "line 0" / "00000.png").read_bytes())
    assert main(command(images, out)) == 2
    assert "data_digest" in capsys.readouterr().err
    assert stub.diagnosed() == before


def test_the_same_command_twice_at_once(images, stub, tmp_path, capfd):
    arguments, codes = command(images, tmp_path / "out"), tmp_path / "codes"

    def meanwhile(batch):
        if batch == 1:
            codes.write_text(str(launch(arguments, stub)))

    assert launch(arguments, StubPipeline(meanwhile, stub.log)) == [0]
    assert codes.read_text() == "[2]"
    assert f"error: {tmp_path / 'out/.unfinished'}: another run is using this folder" in capfd.readouterr().err
    assert stub.diagnosed() == len(load(tmp_path / "out")) == 50


def test_a_finished_run_is_not_repeated(images, stub, tmp_path, capsys):
    for _ in range(2):
        assert main(command(images, tmp_path / "out")) == 0
        assert capsys.readouterr().out == f"{tmp_path / 'out'}: 50 images, 0 defective\n"
    assert stub.diagnosed() == 50


def test_interrupted_merge_goes_on(images, stub, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "MAX_FILE_BYTES", 1)
    out, whole = tmp_path / "out", tmp_path / "whole"
    assert main(command(images, whole, "--batch-size", "4")) == 0
    assert list(files(whole)) == [f"test-{number:05d}-of-00004.parquet" for number in range(4)]
    merged = []

    def stop_at_second(plan, *places):
        shards.merge_file(plan, *places)
        merged.append(plan.name)
        if len(merged) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(run, "merge_file", stop_at_second)
        with pytest.raises(SystemExit, match=str(INTERRUPTED_EXIT_CODE)):
            main(command(images, out, "--batch-size", "4"))
        assert not (out / "data").exists()
        assert main(command(images, out, "--batch-size", "4")) == 0
    assert merged == sorted(files(whole))
    assert files(out) == files(whole)
    assert load(out)["image_id"] == load(whole)["image_id"]


def test_streams_and_tables_give_the_same(steelsynth, stub, tmp_path):
    options = ("--split", "val", "--batch-size", "5")
    assert main(command(steelsynth, tmp_path / "table", *options)) == 0
    assert launch(
        command(steelsynth, tmp_path / "stream", *options, "--streaming", "--num-workers", "2"), stub, 2
    ) == [
        0,
        0,
    ]
    table, stream = load(tmp_path / "table", "val"), load(tmp_path / "stream", "val")
    for name in table.column_names:
        if name != "mask":
            assert table[name] == stream[name]


def test_empty_split(stub, tmp_path):
    features = datasets.Features({"image": datasets.Image(), "image_id": datasets.Value("string")})
    (tmp_path / "data").mkdir()
    datasets.Dataset.from_dict({"image": [], "image_id": []}, features).to_parquet(tmp_path / "data" / "test.parquet")
    for name, options in {"table": (), "stream": ("--streaming",)}.items():
        assert main(command(tmp_path / "data", tmp_path / name, *options)) == 0
        # `datasets` makes no table of an empty split.
        found = datasets.load_dataset(str(tmp_path / name), split="test", streaming=True)
        assert list(found) == []
        assert found.features["mask"] == datasets.Image()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--data", "nowhere"), "nowhere: no such folder, and not to be had from the Hub"),
        (("--model", "nowhere"), "nowhere: --model: no such folder, and not to be had from the Hub"),
        (("--split", "../x"), "--split ../x: is no name of a split"),
        (("--batch-size", "0"), "--batch-size 0: is below 1"),
        (("--reference", "nowhere.png"), "nowhere.png: --reference: does not exist"),
        (("--memory-bank", "none"), "memory bank 'none'"),
        (("--threshold", "7"), "image threshold 7.0: is outside 0 to 1"),
    ],
)
def test_unusable_requests_are_refused_in_one_line(images, tmp_path, capsys, options, message):
    assert main(command(images, tmp_path / "out", *options)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(f"error: {message}")


def test_folders_of_others_are_refused(images, stub, tmp_path, capsys):
    assert main(command(tmp_path, images)) == 2
    assert "holds something else than predictions" in capsys.readouterr().err
    assert main(command(tmp_path / "images" / "line 0" / "..", tmp_path / "out")) == 0


@pytest.mark.slow
def test_memory_does_not_grow_with_the_images(stub, tmp_path):
    peaks = []
    for count in (50, 100, 400):
        write_images(tmp_path / str(count), count)
        tracemalloc.start()
        assert main(command(tmp_path / str(count), tmp_path / f"out{count}", "--batch-size", "16")) == 0
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.2 * peaks[1]  # The first run imports much.


@pytest.mark.slow
def test_launched_on_two_processes(few, tmp_path):
    """The real model and launcher; each process says how many there are by what it records."""
    assert main(command(few[0], tmp_path / "one", "--batch-size", "1")) == 0
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    arguments = command(few[0], tmp_path / "two", "--batch-size", "1")  # six rows in two parts
    subprocess.run(
        [*launcher, "-m", "defect_hub.train.predict", *arguments],
        env={**os.environ, "ACCELERATE_USE_CPU": "true"},
        check=True,
        timeout=300,
        capture_output=True,
    )
    assert json.loads((tmp_path / "two" / "predictions.json").read_text())["processes"] == 2
    assert files(tmp_path / "one") == files(tmp_path / "two")
