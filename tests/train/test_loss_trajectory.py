"""Ten training steps of the tiny preset against stored losses: whatever changes training shows here.

After a change that is meant to change them, from the root of the repository:

    python -m tests.train.test_loss_trajectory
"""

import json
import tempfile
from pathlib import Path

import pytest

from defect_hub.dataset_scripts.steelsynth.build import build_steelsynth
from defect_hub.train.adaptation import adapt
from defect_hub.train.data import DiagnosisCollator, DiagnosisDataset
from defect_hub.train.loop import build_accelerator, fit
from defect_hub.train.spgdd_gpt import SpgddGptRecipe, build_model, split_rows

STORED = Path(__file__).parent / "data/loss_trajectory.json"
# Another CPU sums in another order. PyTorch, oneDNN and MKL without AVX, and two threads in place of one, moved no
# loss by more than the last digit of the log, 1e-5. A hundred times that is far below what a changed formula does.
TOLERANCE = 1e-3


def trajectory(data: Path, output_dir: Path, trainable: str) -> list[dict[str, float]]:
    """The lines of `log.jsonl`; the norm of the gradient, which sums far more numbers, is left out."""
    settings = {"data": str(data), "output_dir": str(output_dir), "trainable": trainable, "resume": False}
    recipe = SpgddGptRecipe(**settings, batch_size=4, max_steps=10, learning_rate=1e-3, reference_counts=[0, 2])
    accelerator = build_accelerator(recipe)
    rows, _ = split_rows(recipe)
    model, processor = build_model(recipe, rows)
    adapted = adapt(model, trainable, "tiny", recipe.lora)
    dataset = DiagnosisDataset(rows, processor, recipe.seed, recipe.flip)
    fit(adapted, dataset, DiagnosisCollator(dataset, recipe.reference_counts), recipe, accelerator)
    lines = [json.loads(line) for line in (output_dir / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "gradient_norm"} for line in lines]


@pytest.mark.parametrize("trainable", ["all", "adapter"])
def test_ten_steps_give_the_stored_losses(tmp_path, steelsynth, trainable):
    stored = json.loads(STORED.read_text())[trainable]
    found = trajectory(steelsynth, tmp_path, trainable)
    assert len(found) == len(stored) == 10
    for step, expected in zip(found, stored, strict=True):
        assert step.keys() == expected.keys() >= {"loss", "text", "pixel", "tddf", "sep", "align"}
        for name, value in expected.items():
            assert step[name] == pytest.approx(value, rel=TOLERANCE, abs=TOLERANCE), (step["step"], name)


def store() -> None:
    """Write what training gives now."""
    with tempfile.TemporaryDirectory() as temporary:
        data = Path(temporary) / "steelsynth"
        build_steelsynth(data, n=40, seed=3)  # the fixture's
        runs = {name: trajectory(data, Path(temporary) / name, name) for name in ("all", "adapter")}
    lines = [
        f"  {json.dumps(name)}: [\n    " + ",\n    ".join(map(json.dumps, steps)) + "\n  ]"
        for name, steps in runs.items()
    ]
    STORED.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    store()
