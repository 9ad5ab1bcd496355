"""Words and sentences of the attributes that a mask has; the whole template is tested with the data sets' texts."""

import numpy as np
import pytest

from defect_hub.modeling.mask_attributes import mask_attributes
from defect_hub.modeling.template_sentences import normal_answer, plural, template_sentence, with_article


def test_plural() -> None:
    nouns = ["patch", "scratch", "inclusion", "assay", "body", "mass"]
    assert [plural(noun) for noun in nouns] == ["patches", "scratches", "inclusions", "assays", "bodies", "masses"]


@pytest.mark.parametrize(
    ("noun", "many"),
    [
        ("foreign body", "foreign bodies"),
        ("broken tooth", "broken teeth"),
        ("missing leg", "missing legs"),
        ("loss of material", "losses of material"),
        ("chip around the edge", "chips around the edge"),
        ("cut in the outer insulation", "cuts in the outer insulation"),
        ("rolled in scale mark", "rolled in scale marks"),
    ],
)
def test_plural_of_phrases(noun: str, many: str) -> None:
    assert plural(noun) == many


@pytest.mark.parametrize("phrase", ["a unit", "an hourglass", "an uneven area", "a used part", "an image", "a rail"])
def test_articles(phrase: str) -> None:
    assert with_article(phrase.split(" ", 1)[1]) == phrase


@pytest.mark.parametrize("measured", [False, True])
def test_what_was_not_measured_is_not_said(measured: bool) -> None:
    mask = np.zeros((20, 20), bool)
    mask[1, 2:10] = True
    gray = np.where(mask, 0, 90).astype(np.uint8)
    found = mask_attributes(gray if measured else None, mask, "defect")
    assert template_sentence(found, "magnetic tile", "defect") == (
        f"A small {'dark ' if measured else ''}defect is observed on the magnetic tile. It has an elongated shape. "
        "It extends in a horizontal direction. The defect is isolated, consisting of one region, located at "
        f"the top left and the top center.{' The defect exhibits high saliency.' if measured else ''}"
    )


def test_a_normal_image() -> None:
    assert normal_answer("magnetic tile") == "No, the magnetic tile shows no defect."
