"""steelsynth: determinism, exact masks, and texts recomputed from the files."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from defect_hub.dataset_scripts.steelsynth.defects import DRAWERS, SIGNS
from defect_hub.dataset_scripts.steelsynth.generate import MASK_LEVEL, NORMAL, generate_sample
from defect_hub.dataset_scripts.steelsynth.release import write_release
from defect_hub.dataset_scripts.steelsynth.surface import noise_texture, rolled_surface
from defect_hub.modeling.mask_attributes import mask_attributes

N_TRAIN, N_VAL = 140, 20


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("steelsynth") / "release"
    write_release(out, N_TRAIN, N_VAL, seed=3)
    return out


def entries(release: Path) -> list[tuple[dict[str, Any], np.ndarray, np.ndarray]]:
    """(entry, gray, mask) of every image, read from the files."""
    rows = []
    for split in ("train", "val"):
        for entry in json.loads((release / f"{split}-text.json").read_text()):
            stem = Path(entry["image_name"]).stem
            with (
                Image.open(release / split / f"{stem}.jpg") as image,
                Image.open(release / f"{split}_mask" / f"{stem}.png") as mask,
            ):
                assert image.mode == mask.mode == "L"
                rows.append((entry, np.asarray(image), np.asarray(mask) > 127))
    return rows


def file_bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_same_sample_for_same_seed_and_index() -> None:
    first, again, other = generate_sample(1, 2), generate_sample(1, 2), generate_sample(1, 3)
    assert first.class_name == again.class_name
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.mask, again.mask)
    assert not np.array_equal(first.image, other.image)


def test_same_bytes_for_any_number_of_workers(release: Path, tmp_path: Path) -> None:
    write_release(tmp_path / "two", N_TRAIN, N_VAL, seed=3, workers=2)
    assert file_bytes(tmp_path / "two") == file_bytes(release)


def test_sizes_and_too_small() -> None:
    assert generate_sample(0, 0, size=96).image.shape == (96, 96)
    with pytest.raises(ValueError, match="under 64"):
        generate_sample(0, 0, size=63)


def test_noise_has_the_asked_deviation() -> None:
    field = noise_texture(np.random.default_rng(0), 256, ((3.0, 2.0, 1.0), (4.0, 0.0, 0.5)))
    assert field.std() == pytest.approx(5, rel=0.05)
    assert field.mean() == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("class_name", DRAWERS)
def test_the_mask_is_where_the_pixels_changed(class_name: str) -> None:
    for seed in range(12):
        rng = np.random.default_rng(seed)
        mark = DRAWERS[class_name](rng, rolled_surface(rng, 256))
        mask = mark.coverage >= MASK_LEVEL
        far = ~ndimage.binary_dilation(mark.coverage > 0, iterations=2)
        assert np.abs(mark.delta[far]).max(initial=0) < 1
        if mask.any():
            assert np.abs(mark.delta[mask]).mean() > 6


def test_classes_and_shares(release: Path) -> None:
    names = [entry["class_name"] for entry, _, _ in entries(release)]
    assert set(names) == {*DRAWERS, NORMAL}
    assert 0.25 < names.count(NORMAL) / len(names) < 0.45
    descriptions = json.loads((release / "class_descriptions.json").read_text())
    assert set(descriptions) == {*DRAWERS, NORMAL}
    assert descriptions["Oil spot"] == (
        "A photo of Oil spot, which shows smooth dark spots with soft edges caused by lubricant contamination."
    )


def test_only_normal_surfaces_have_empty_masks(release: Path) -> None:
    for entry, _, mask in entries(release):
        normal = entry["class_name"] == NORMAL
        assert mask.any() != normal
        assert (entry["structured_attributes"] is None) == normal
        assert (entry["template_sentence"] == "A steel surface without defects.") == normal


def expected_words(gray: np.ndarray, mask: np.ndarray) -> dict[str, str]:
    """Count, scale, polarity, saliency and top cell, written a second time from the release's rules."""
    components = ndimage.label(mask, np.ones((3, 3)))[1]
    ratio = np.count_nonzero(mask) / mask.size
    difference = gray[mask].mean() - gray[~mask].mean()
    thirds = [np.array_split(np.arange(256), [85, 171])] * 2
    shares = {
        f"{row} {col}": np.count_nonzero(mask[np.ix_(rows, cols)])
        for row, rows in zip(("top", "middle", "bottom"), thirds[0], strict=True)
        for col, cols in zip(("left", "center", "right"), thirds[1], strict=True)
    }
    top = max(shares, key=lambda cell: shares[cell])
    return {
        "count": ["one", "two", "three", "four", "five"][components - 1] if components < 6 else "multiple",
        "scale": ["tiny", "small", "medium", "large", "extensive"][int(np.digitize(ratio, [0.01, 0.03, 0.1, 0.25]))],
        "polarity": "dark" if difference < -5 else "bright" if difference > 5 else "",
        "saliency": "low" if abs(difference) < 10 else "medium" if abs(difference) <= 40 else "high",
        "cell": "center" if top == "middle center" else top,
    }


def test_every_word_follows_from_the_files(release: Path) -> None:
    sentence = re.compile(
        r"(?P<subject>[^.]+) (is|are) observed on the steel surface\. "
        r"(It has|They have) an? (?P<shape>[a-z-]+) shape\. "
        r"((It extends|They extend) in a (?P<direction>\w+) direction\. )?"
        r"The defects? (is|are) (?P<distribution>\w+), consisting of (?P<count>\w+) regions?, "
        r"(mainly )?located at the (?P<cell>(?!and)[a-z ]+?)( and the [a-z ]+)?\. "
        r"The defects? exhibits? (?P<saliency>\w+) saliency\."
    )
    for entry, gray, mask in entries(release):
        if not mask.any():
            continue
        expected = expected_words(gray, mask)
        found = sentence.fullmatch(entry["template_sentence"])
        assert found is not None, entry["template_sentence"]
        assert (found["count"], found["cell"]) == (expected["count"], expected["cell"])
        assert found["saliency"] == expected["saliency"]
        words = found["subject"].lower().split()
        assert (words[0] in ("a", "an")) == (expected["count"] == "one")
        assert expected["scale"] in words
        assert {"dark", "bright"} & set(words) == {expected["polarity"]} - {""}
        attributes = mask_attributes(gray, mask, entry["class_name"])
        assert entry["structured_attributes"] == attributes
        assert found["shape"] == attributes["Shape"]
        assert found["distribution"] == attributes["Spatial Distribution"]
        assert (found["direction"] or "none") == attributes["Direction"]
        prose = entry["natural_language_description"].lower()
        count = {"one": words[0], "multiple": "several"}.get(expected["count"], expected["count"])
        assert f"{count} {expected['scale']} " in prose
        assert f"in the {expected['cell']}" in prose
        assert re.search(rf"contrast[a-z ]* is {expected['saliency']}|{expected['saliency']} contrast", prose)


def test_named_polarities_are_true(release: Path) -> None:
    for entry, gray, mask in entries(release):
        sign = SIGNS.get(entry["class_name"])
        if sign:
            assert sign * (gray[mask].mean() - gray[~mask].mean()) > 5


def test_a_failed_run_leaves_the_older_release(release: Path, tmp_path: Path) -> None:
    out = tmp_path / "release"
    write_release(out, 2, 1, seed=5)
    before = file_bytes(out)
    with pytest.raises(ValueError, match="under 64"):
        write_release(out, 2, 1, size=8)
    assert file_bytes(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["release"]
    write_release(out, 3, 1, seed=5)
    assert len(list((out / "train").iterdir())) == 3


def test_a_foreign_folder_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("do not delete")
    with pytest.raises(FileExistsError, match="not a release"):
        write_release(tmp_path, 1, 1)
    assert (tmp_path / "thesis.txt").read_text() == "do not delete"
