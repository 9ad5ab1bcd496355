"""`defect-hub bench`: what is measured, what is not run and why, and the record."""

import json
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image
from transformers import AutoConfig, AutoModel, AutoProcessor

from defect_hub.benchmarks.bench import BenchRequest, mismatch, parse_models, run_table, training_command
from defect_hub.benchmarks.pages import table_lines
from defect_hub.benchmarks.paper_tables import load_paper
from defect_hub.cli import main
from defect_hub.train.run_facts import DataUse, RunFacts, SourceRows, write_run


def write_split(folder: Path, split: str, count: int) -> None:
    """`count` magnetic tiles, every second with a bright square."""
    rng = np.random.default_rng(count)
    records = []
    for number in range(count):
        pixels, mask = rng.integers(90, 110, (48, 48), dtype=np.uint8), np.zeros((48, 48), dtype=np.uint8)
        if number % 2:
            pixels[20:40, 20:40], mask[20:40, 20:40] = 250, 255
        records.append(
            {
                "image": Image.fromarray(pixels),
                "mask": Image.fromarray(mask),
                "image_id": f"{split}-{number}",
                "sha256": f"{split}-{number}",
                "source": "MT",
                "object_name": "magnetic tile",
                "is_defective": bool(number % 2),
                "annotation": "mask",
                "official_split": None,
                "height": 48,
                "width": 48,
            }
        )
    (folder / "data").mkdir(exist_ok=True, parents=True)
    datasets.Dataset.from_list(records).to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench") / "built"
    for split, count in (("train", 8), ("validation", 2), ("test", 4)):
        write_split(folder, split, count)
    return folder


@pytest.fixture(scope="module")
def record(data: Path, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """Table II through the command line: one subset is there, twenty are not."""
    out = tmp_path_factory.mktemp("results") / "two.json"
    arguments = ["bench", "spgdd-gpt", "--table", "2", "--data", str(data), "--model", str(tiny_checkpoint)]
    assert main([*arguments, "--draws", "2", "--seed", "7", "--out", str(out)]) == 0
    return json.loads(out.read_text())


def test_a_subset_that_is_there_is_measured(record, tiny_checkpoint: Path) -> None:  # type: ignore[no-untyped-def]
    cells = [cell for cell in record["cells"] if cell["data"] == "MT"]
    assert [cell["shots"] for cell in cells] == [1, 2, 4]
    for cell in cells:
        values = [draw["metrics"]["pixel_auroc"] for draw in cell["draws"]]
        assert len(values) == 2
        assert cell["metrics"]["pixel_auroc"]["mean"] == pytest.approx(np.mean(values))
        # Of four normal images, all draws of four are the same.
        deviation = None if cell["shots"] == 4 else pytest.approx(np.std(values, ddof=1))
        assert cell["metrics"]["pixel_auroc"]["std"] == deviation
        for draw in cell["draws"]:
            ids = draw["references"]["magnetic tile"]
            assert len(set(ids)) == cell["shots"]
            assert set(ids) <= {f"train-{number}" for number in (0, 2, 4, 6)}
        assert cell["part"] == "14 of 1,344 images"
    assert record["models"][tiny_checkpoint.name]["parameters"] > 0


def test_what_is_missing_is_said_with_its_command(record) -> None:  # type: ignore[no-untyped-def]
    others = [cell for cell in record["cells"] if cell["data"] != "MT"]
    assert len(others) == 3 * 20
    assert all("metrics" not in cell for cell in others)
    visa = next(cell for cell in others if cell["data"] == "VisA")
    assert visa["not_run"] == "needs VisA in the data"
    assert visa["command"] == "defect-hub data build tadd --raw RAW --subsets VisA --out DATA"


def test_the_record_tells_where_it_comes_from(record, data: Path) -> None:  # type: ignore[no-untyped-def]
    assert record["command"].startswith("defect-hub bench spgdd-gpt --table 2 --data built --model")
    assert record["command"].endswith("--seed 7 --draws 2")
    assert str(data.parent) not in json.dumps(record)
    assert record.keys() >= {"commit", "date", "hardware", "versions", "protocol", "seed"}
    assert record["protocol"]["draws"] == 2


def test_the_table_never_mixes_paper_and_measured(record) -> None:  # type: ignore[no-untyped-def]
    lines = [line.split(" | ") for line in table_lines("spgdd-gpt", 2, [record]) if line.startswith("| 1-shot | MT")]
    [line] = lines
    assert line[3:5] == ["88.8", "92.8 (WinCLIP)"]
    assert "(part: 14 of 1,344 images)" in line[5]


def test_variants_need_checkpoints_of_their_own(data: Path, tiny_checkpoint: Path) -> None:
    """Without data of MVTec-AD nothing is run; with models the reason is the first thing that lacks."""
    result = run_table(BenchRequest("spgdd-gpt", 4, str(data), {"": str(tiny_checkpoint)}))
    assert {cell["not_run"] for cell in result["cells"]} == {"needs MVTec-AD in the data", "needs VisA in the data"}
    without = run_table(BenchRequest("spgdd-gpt", 4))
    assert len(without["cells"]) == 6
    assert without["data"] is None


def checkpoint(folder: Path, tiny: Path, recipe: dict | None = None, source: str = "MT", **switches: object) -> Path:
    """A copy with other switches and, with a recipe, a record of its training."""
    model = AutoModel.from_pretrained(tiny, ignore_mismatched_sizes=True, **switches)
    processor = AutoProcessor.from_pretrained(tiny)
    processor.num_image_tokens = model.config.num_image_tokens
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    if recipe is not None:
        use = DataUse("training", "train", [SourceRows(source, None, None, 8)])
        write_run(folder, RunFacts("data", [use], "command", recipe))
    return folder


def test_a_checkpoint_is_measured_as_what_it_is_alone(tmp_path: Path, tiny_checkpoint: Path) -> None:
    """Each checkpoint as each variant: only its own is not refused."""
    paper = load_paper("spgdd-gpt")
    config = AutoConfig.from_pretrained(tiny_checkpoint)
    for name, options in paper.variants.items():
        for switch, value in options.get("model_config", {}).items():
            setattr(config, switch, value)
        recipe = {"reference_counts": [0, 1], "trainable": "adapter"} | options
        run = RunFacts("data", [], "command", recipe)
        fitting = [variant for variant in paper.variants if not mismatch(paper, variant, config, run)]
        assert fitting == [name]
        config = AutoConfig.from_pretrained(tiny_checkpoint)
    assert mismatch(paper, "default", config, None) == ""
    assert mismatch(paper, "no_memory", config, None) == (
        "a checkpoint with reference_counts=[0]; this one has what run.json does not say"
    )
    config.vv_mode = "vv"  # none of the variants
    assert mismatch(paper, "default", config, None) == "a checkpoint with vv_mode='enhanced_vv'; this one has 'vv'"


@pytest.fixture
def both(data: Path, tmp_path: Path) -> Path:
    """The images under the name of MVTec-AD, all of them of its official test."""
    folder = tmp_path / "both"
    for split in ("train", "validation", "test"):
        rows = datasets.load_dataset(str(data), "default", split=split)
        rows = rows.map(lambda row: {"source": "MVTec-AD", "official_split": "test"})
        (folder / "data").mkdir(parents=True, exist_ok=True)
        rows.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def reasons(request: BenchRequest) -> dict[str, str]:
    """Why the cells of MVTec-AD were not run, by row; empty where one was."""
    cells = [cell for cell in run_table(request)["cells"] if cell["data"].endswith("MVTec-AD")]
    return {cell["row"]: cell.get("not_run", "") for cell in cells}


def test_other_variants_are_not_measured(both: Path, tmp_path: Path, tiny_checkpoint: Path) -> None:
    cosine = str(checkpoint(tmp_path / "cosine", tiny_checkpoint, focuser="cosine"))
    models = {"": cosine, "Only TDDF": cosine}
    assert reasons(BenchRequest("spgdd-gpt", 4, str(both), models)) == {
        "w/ TDDF": "needs a checkpoint with focuser='tddf'; this one has 'cosine' (cosine)",
        "w/o TDDF": "needs a checkpoint 'w/o TDDF'",
        "Only TDDF": "needs a checkpoint with detection_head='mean'; this one has 'conv' (cosine)",
    }
    lora = str(checkpoint(tmp_path / "lora", tiny_checkpoint, {"trainable": "lora", "reference_counts": [0, 1]}))
    refused = "needs a checkpoint with another trainable than 'lora' (lora)"
    assert reasons(BenchRequest("spgdd-gpt", 5, str(both), {"": lora, "w/o MSSPMM": lora})) == {
        "w/o MSSPMM": "needs a checkpoint with reference_counts=[0]; this one has [0, 1] (lora)",
        "w/ MSSPMM": refused,
    }


def test_table_one_needs_a_record_of_the_training(both: Path, tmp_path: Path, tiny_checkpoint: Path) -> None:
    name = "VisA → MVTec-AD"
    for folder, source, reason in (
        (tiny_checkpoint, "", "needs a checkpoint trained on VisA; this one saw what its run.json does not say"),
        (tmp_path / "seen", "MVTec-AD", "needs a checkpoint trained on VisA; this one saw MVTec-AD"),
        (tmp_path / "fits", "VisA", ""),
    ):
        if source:
            checkpoint(folder, tiny_checkpoint, {}, source)
        result = run_table(BenchRequest("spgdd-gpt", 1, str(both), {"VisA": str(folder)}))
        [cell] = [cell for cell in result["cells"] if cell["data"] == name]
        assert cell.get("not_run", "") == reason
        assert ("metrics" in cell) is (reason == "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--draws", "0"], "error: --draws 0: give a number from 1"),
        (["--model", "tiny"], "error: --model tiny: stands for fresh weights in a training recipe; name a checkpoint"),
    ],
)
def test_unusable_options_are_one_line(
    arguments: list[str], message: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "spgdd-gpt", "--table", "2", "--data", str(data), *arguments]) == 2
    [error] = capsys.readouterr().err.splitlines()
    assert error.startswith(message)


def test_commands_train_the_variants() -> None:
    paper = load_paper("spgdd-gpt")
    assert training_command(paper, "cosine", "w/o TDDF") == (
        paper.train + """ --model_config '{"focuser": "cosine"}' --output_dir runs/w-o-tddf"""
    )
    assert "--reference_counts 0 --output_dir" in training_command(paper, "no_memory", "w/o MSSPMM")
    assert "--trainable lora" in training_command(paper, "lora", "LoRA")


def test_models_are_named_by_row() -> None:
    assert parse_models(["runs/a", "w/o TDDF=runs/b"]) == {"": "runs/a", "w/o TDDF": "runs/b"}
    with pytest.raises(ValueError, match=r"nothing=\.\.\.: table 4 names Only TDDF, w/ TDDF, w/o TDDF"):
        run_table(BenchRequest("spgdd-gpt", 4, models={"nothing": "x"}))


def test_unknown_tables_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "spgdd-gpt", "--table", "9"]) == 2
    assert "has the tables 1, 2, 3, 4, 5, 6, 7, 8" in capsys.readouterr().err
    assert main(["bench", "other", "--table", "1"]) == 2
    assert "Choose one of spgdd-gpt" in capsys.readouterr().err
