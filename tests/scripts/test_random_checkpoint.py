import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModel, AutoProcessor

from scripts.random_checkpoint import write_random_checkpoint


def test_the_seed_decides_and_the_folder_is_complete(tmp_path):
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        torch.manual_seed(7)
        write_random_checkpoint(tmp_path / name, seed)
    first, again, other = (load_file(tmp_path / name / "model.safetensors") for name in ("first", "again", "other"))
    assert all(torch.equal(again[name], value) for name, value in first.items())
    assert not all(torch.equal(other[name], value) for name, value in first.items())
    model, processor = AutoModel.from_pretrained(tmp_path / "first"), AutoProcessor.from_pretrained(tmp_path / "first")
    assert model.diagnose(**processor(images=Image.new("RGB", (40, 30))), max_new_tokens=2).sequences.shape == (1, 2)
    assert (tmp_path / "first/modeling_spgdd_gpt.py").is_file()


def test_what_is_there_is_kept(tmp_path):
    with pytest.raises(FileExistsError, match="exists; name a new folder"):
        write_random_checkpoint(tmp_path, 0)
