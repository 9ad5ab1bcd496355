import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import nn

from defect_hub.train.checkpoints import Checkpoints, LoopState, checkpoints, model_signature


class Tied(nn.Module):
    """A base whose embedding is its head, and a new part."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embedding.weight
        self.new = nn.Linear(3, 3)
        self.register_buffer("seen", torch.zeros(2))


@pytest.mark.parametrize("frozen", [True, False])
def test_tied_weights_are_saved_once_and_frozen_ones_never(tmp_path, frozen):
    torch.manual_seed(0)
    model = Tied()
    model.embedding.requires_grad_(not frozen)
    accelerator = Accelerator(cpu=True)
    prepared = accelerator.prepare(model)
    kept = Checkpoints(accelerator, tmp_path, 2, {}, model_signature(model))
    kept.save(LoopState(step=3))
    [folder] = checkpoints(tmp_path)
    saved = load_file(folder / "model.safetensors")
    assert saved.keys() - {"embedding.weight", "head.weight"} == {"new.weight", "new.bias", "seen"}
    assert len(saved) == (3 if frozen else 4)
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        for name, value in prepared.state_dict().items():
            if not (frozen and "new" not in name):
                value.add_(1)
    assert kept.load_newest() == LoopState(step=3)
    for name, value in model.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_signature_tells_models_apart_by_shape_class_and_frozen_values():
    torch.manual_seed(0)
    model, other = Tied(), Tied()
    for each in (model, other):
        each.embedding.requires_grad_(False)
    first, second = model_signature(model), model_signature(other)
    assert first["weights"] == second["weights"] == {"seen": [2], "new.weight": [3, 3], "new.bias": [3]}
    assert first["frozen"] != second["frozen"]
    other.load_state_dict(model.state_dict())
    assert model_signature(other) == first
    with torch.no_grad():
        other.new.weight.add_(1)  # what is trained may differ
    assert model_signature(other) == first
