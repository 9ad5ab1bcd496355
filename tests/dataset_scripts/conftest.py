import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from defect_hub.dataset_scripts.steelsynth.release import write_release


@pytest.fixture(scope="session")
def release_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release") / "raw"
    write_release(folder, n_train=12, n_val=5, seed=3, size=64)
    return folder


@pytest.fixture
def release(release_template: Path, tmp_path: Path) -> Path:
    """A small release folder with normal surfaces that a test may spoil."""
    return Path(shutil.copytree(release_template, tmp_path / "raw"))


@pytest.fixture
def magnetic_tiles(tmp_path: Path) -> Path:
    """The layout of the magnetic-tile set: 12 images a category, grey mask edges, one empty mask in MT_Uneven."""
    rng = np.random.default_rng(0)
    root = tmp_path / "MT"
    for category in ("Blowhole", "Break", "Crack", "Fray", "Free", "Uneven"):
        folder = root / f"MT_{category}" / "Imgs"
        folder.mkdir(parents=True)
        for index in range(12):
            size = (40 + index, 64)
            mask = np.zeros(size, np.uint8)
            if category != "Free" and not (category == "Uneven" and index == 0):
                mask[10:20, 10:20] = 255
                mask[9, 10:20] = 127
            image = rng.integers(100, 140, size, dtype=np.uint8)
            image[mask == 255] //= 2
            Image.fromarray(image).save(folder / f"exp1_num_{index}.jpg")
            Image.fromarray(mask).save(folder / f"exp1_num_{index}.png")
    return root
