"""The compositional prompt ensemble."""

import pytest

from defect_hub.modeling.text_prompts import ABNORMAL_STATES, NORMAL_STATES, TEMPLATES, prompt_ensemble


def test_every_state_meets_every_template() -> None:
    normal, abnormal = prompt_ensemble("magnetic tile")
    assert len(set(normal)) == len(set(abnormal)) == len(NORMAL_STATES) * len(TEMPLATES)
    assert set(normal).isdisjoint(abnormal)
    assert "a cropped photo of the magnetic tile without damage." in normal
    assert "a photo of a damaged magnetic tile." in abnormal


def test_own_words() -> None:
    found = prompt_ensemble("weld {}", ["clean {}"], ["cracked {}"], ["an X-ray of a {}.", "{}."])
    assert found == (
        ["an X-ray of a clean weld {}.", "clean weld {}."],
        ["an X-ray of a cracked weld {}.", "cracked weld {}."],
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((NORMAL_STATES, ABNORMAL_STATES[:4]), "normal_states, abnormal_states: 6 and 4 phrases; give as many"),
        ((["good"], ["bad {}"]), "prompt 'good': must hold {} once"),
        ((["{}"], ["bad {}"], ["{} and {}"]), "prompt '{} and {}': must hold {} once"),
    ],
)
def test_words_that_make_no_prompts(words: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prompt_ensemble("tile", *words)
