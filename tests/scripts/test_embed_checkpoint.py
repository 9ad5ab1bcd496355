"""The checkpoint inside the package: made from a run, small, and whole."""

import torch
from transformers import AutoModel, AutoProcessor

from defect_hub.embedded import EMBEDDED_CHECKPOINT
from defect_hub.train.cards import model_card
from defect_hub.train.run_facts import RunFacts, read_run
from defect_hub.train.saving import save_complete
from scripts.embed_checkpoint import embed


def test_embedding_halves_the_weights_and_drops_the_code(tiny_checkpoint, tmp_path):
    model, processor = AutoModel.from_pretrained(tiny_checkpoint), AutoProcessor.from_pretrained(tiny_checkpoint)
    run = RunFacts("set", [], "the command", {"seed": 42})
    save_complete(model, processor, tmp_path / "run", run)
    embed(tmp_path / "run", tmp_path / "embedded")
    assert not list((tmp_path / "embedded").glob("*.py"))
    assert read_run(tmp_path / "embedded") == run
    assert (tmp_path / "embedded/README.md").read_text() == model_card(tmp_path / "embedded")
    loaded = AutoModel.from_pretrained(tmp_path / "embedded")
    assert loaded.dtype == torch.float32
    assert loaded.model.clip.vision_model.embeddings.position_ids.dtype == torch.long
    for name, value in model.state_dict().items():
        expected = value.half().float() if value.is_floating_point() else value
        assert torch.equal(loaded.state_dict()[name], expected), name
    assert AutoProcessor.from_pretrained(tmp_path / "embedded").calibration == processor.calibration


def test_the_packaged_checkpoint_is_small_calibrated_and_loads():
    assert (EMBEDDED_CHECKPOINT / "model.safetensors").stat().st_size <= 2_000_000
    assert AutoModel.from_pretrained(EMBEDDED_CHECKPOINT).num_parameters() > 900_000
    calibration = AutoProcessor.from_pretrained(EMBEDDED_CHECKPOINT).calibration
    assert calibration.keys() == {"zero_shot", "few_shot"}
