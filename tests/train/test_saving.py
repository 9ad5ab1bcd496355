from dataclasses import replace

import pytest
import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor, pipeline

import defect_hub  # noqa: F401 (registers the Auto classes)
from defect_hub.train.cards import model_card
from defect_hub.train.run_facts import RunFacts, read_run
from defect_hub.train.saving import save_complete

RUN = RunFacts("set", [], "the command", {"seed": 42})


@pytest.fixture
def parts(tiny_checkpoint):
    model = AutoModel.from_pretrained(tiny_checkpoint, memory_capacity=1, ignore_mismatched_sizes=True)
    processor = AutoProcessor.from_pretrained(tiny_checkpoint)
    model.remember(torch.randn(1, 3, 240, 240, generator=torch.Generator().manual_seed(0)))
    return model, processor


def test_folder_is_complete(parts, tmp_path):
    model, processor = parts
    save_complete(model, processor, tmp_path / "model", RUN)
    loaded = AutoModel.from_pretrained(tmp_path / "model")
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    assert AutoProcessor.from_pretrained(tmp_path / "model").calibration == processor.calibration
    assert read_run(tmp_path / "model") == RUN
    card = (tmp_path / "model/README.md").read_text()
    assert card == model_card(tmp_path / "model")
    assert "the command" in card
    assert loaded.config.auto_map.keys() == {"AutoConfig", "AutoModel", "AutoModelForImageTextToText"}
    code = {entry.split(".")[0] for entry in loaded.config.auto_map.values()}
    assert all((tmp_path / f"model/{module}.py").exists() for module in code)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_failed_save_leaves_the_earlier_folder(parts, tmp_path):
    model, processor = parts
    save_complete(model, processor, tmp_path / "model", RUN)
    torch.nn.init.zeros_(model.lm_head.weight)
    with pytest.raises(TypeError):
        save_complete(model, processor, tmp_path / "model", replace(RUN, recipe={"seed": object()}))
    assert read_run(tmp_path / "model") == RUN
    assert AutoModel.from_pretrained(tmp_path / "model").lm_head.weight.any()
    (tmp_path / "model.old").mkdir()
    (tmp_path / "model.old/config.json").touch()  # left by a killed process
    save_complete(model, processor, tmp_path / "model", None)
    assert not (tmp_path / "model.old").exists()
    assert read_run(tmp_path / "model") is None
    assert "No training run is recorded" in (tmp_path / "model/README.md").read_text()


def test_pipeline_reads_the_folder_without_remote_code(parts, tmp_path):
    save_complete(*parts, tmp_path / "model", None)
    image = tmp_path / "image.png"
    Image.linear_gradient("L").resize((50, 40)).save(image)
    report = pipeline("defect-diagnosis", model=str(tmp_path / "model"))(str(image))
    assert report["mask"].shape == (40, 50)
