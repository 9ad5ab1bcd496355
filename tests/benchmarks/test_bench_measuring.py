"""Parts of a data set, drawn references and means over draws."""

import datasets
import numpy as np
import pytest
from PIL import Image

from defect_hub.benchmarks.measuring import (
    NotRun,
    measure,
    object_references,
    of_source,
    over_draws,
    summary,
    without_defects,
)
from defect_hub.evaluate_metrics.kernels.pixel_scores import PixelScores
from defect_hub.train.evaluation import DiagnosisScores


def rows(*records: tuple[str, str, bool | None, str]) -> datasets.Dataset:
    """Rows of (image_id, object, defective, annotation); the image of a defective one has a bright square."""
    made = []
    for image_id, name, defective, annotation in records:
        pixels, mask = np.full((40, 40, 3), 100, np.uint8), np.zeros((40, 40), np.uint8)
        if defective:
            pixels[10:20, 10:20], mask[10:20, 10:20] = 250, 255
        made.append(
            {
                "image_id": image_id,
                "image": Image.fromarray(pixels),
                "mask": Image.fromarray(mask) if annotation == "mask" else None,
                "sha256": image_id,
                "source": "A" if image_id < "m" else "B",
                "object_name": name,
                "is_defective": defective,
                "annotation": annotation,
            }
        )
    return datasets.Dataset.from_list(made)


def test_references_are_normal_images_of_the_object() -> None:
    tiles = [(f"a{number}", "tile", number % 2 == 0, "mask") for number in range(8)]
    train = rows(*tiles, ("b", "nut", False, "mask"))
    kind, draws = object_references(train, "tile", 2, 5, seed=42)
    assert kind == "normal images"
    assert len(draws) == 5
    for draw in draws:
        assert len({reference.id for reference in draw}) == 2
        assert {reference.id for reference in draw} <= {"a1", "a3", "a5", "a7"}
    _, again = object_references(train, "tile", 2, 5, seed=42)
    assert [[r.id for r in draw] for draw in again] == [[r.id for r in draw] for draw in draws]


def test_a_set_without_normal_images_gives_images_with_the_defects_filled_in() -> None:
    train = rows(("a", "road", True, "mask"), ("b", "road", True, "none"), ("c", "road", None, "none"))
    kind, [[reference]] = object_references(train, "road", 1, 1, seed=0)
    assert "filled in" in kind
    assert reference.id == "a"
    assert (np.asarray(reference.image) == 100).all()


def test_too_few_references_are_not_run() -> None:
    with pytest.raises(NotRun, match="2 training images of 'road'"):
        object_references(rows(("a", "road", True, "mask")), "road", 2, 1, seed=0)


def test_filling_leaves_what_is_far_from_the_defect() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (30, 30, 3), dtype=np.uint8)
    mask = np.zeros((30, 30), np.uint8)
    mask[12:15, 12:15] = 255
    found = np.asarray(without_defects(Image.fromarray(pixels), Image.fromarray(mask)))
    far = np.ones((30, 30), bool)
    far[9:18, 9:18] = False
    assert (found[far] == pixels[far]).all()
    assert (found[13, 13] != pixels[13, 13]).any()


def test_summary_is_the_sample_standard_deviation() -> None:
    assert summary([1.0, 2.0, 4.0]) == {"mean": pytest.approx(7 / 3), "std": pytest.approx((7 / 3) ** 0.5)}
    assert summary([0.5]) == {"mean": 0.5, "std": None}


def scores(labels: list[bool], values: list[float]) -> DiagnosisScores:
    return DiagnosisScores(np.array(values), np.array(labels), PixelScores())


def test_measure_is_the_mean_over_objects_of_each_draw() -> None:
    test = rows(
        *((f"t{number}", "tile", number % 2 == 0, "mask") for number in range(4)),
        *((f"n{number}", "nut", number % 2 == 0, "mask") for number in range(4)),
    )
    train = rows(*((f"x{number}", name, False, "mask") for number, name in enumerate(["tile", "nut"] * 6)))
    seen = []

    def scores_of(tested, references):  # type: ignore[no-untyped-def]
        name = tested["object_name"][0]
        seen.append((name, len(references)))
        values = [1.0, 0.0, 1.0, 0.0] if name == "tile" else [0.0, 1.0, 0.0, 1.0]
        return scores(list(tested["is_defective"]), values)

    found = measure(scores_of, test, train, shots=2, draws=3, seed=1, metrics=["image_auroc"])
    assert found["metrics"] == {"image_auroc": {"mean": 0.5, "std": 0.0}}  # 1 for tiles, 0 for nuts
    assert len(found["draws"]) == 3
    assert set(found["draws"][0]["references"]) == {"tile", "nut"}
    assert seen == [("nut", 2), ("tile", 2)] * 3
    assert found["images"] | {"fingerprint": ""} == {"normal": 4, "defective": 4, "objects": 2, "fingerprint": ""}
    zero = measure(scores_of, test, train, shots=0, draws=3, seed=1, metrics=["image_auroc"])
    assert len(zero["draws"]) == 1
    assert zero["metrics"]["image_auroc"]["std"] is None


def test_a_metric_that_is_undefined_for_one_object_has_no_value() -> None:
    test = rows(("a", "tile", True, "mask"), ("b", "tile", False, "mask"), ("c", "road", True, "mask"))

    def scores_of(tested, references):  # type: ignore[no-untyped-def]
        return scores(list(tested["is_defective"]), [0.5] * len(tested))

    found = measure(scores_of, test, test.select([]), shots=0, draws=1, seed=1, metrics=["image_auroc"])
    assert found["metrics"] == {}
    assert found["undefined"]["image_auroc"].startswith("road: ")


def test_tested_images_are_no_references() -> None:
    test = rows(("a", "tile", False, "mask"))
    with pytest.raises(ValueError, match="1 images are both"):
        measure(lambda tested, references: scores([False], [0.0]), test, test, 1, 1, 1, ["image_auroc"])


def test_a_subset_is_chosen_by_its_source() -> None:
    assert of_source(rows(("a", "x", True, "mask"), ("z", "x", True, "mask")), "B")["image_id"] == ["z"]


def test_draws_with_the_same_references_have_no_deviation() -> None:
    same = [
        {"references": {"a": ["1", "2"]}, "metrics": {"x": 0.5}},
        {"references": {"a": ["2", "1"]}, "metrics": {"x": 0.5}},
    ]
    assert over_draws(same, "x") == {"mean": 0.5, "std": None}
    other = [same[0], {"references": {"a": ["1", "3"]}, "metrics": {"x": 0.7}}]
    assert over_draws(other, "x") == {"mean": pytest.approx(0.6), "std": pytest.approx(0.02**0.5)}
