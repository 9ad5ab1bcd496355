"""Description accuracy: does the text say yes or no, and is that right? A text that does not say it is wrong."""

import re
from collections.abc import Sequence

from defect_hub.evaluate_metrics.kernels.inputs import UndefinedMetricError

_MARKUP = r"(?:<[^>]*>|[\s*_#>`~\"'“”‘’«»(\[-])*"
# "No doubt", "no idea": a no that answers something else.
_IDIOM = r"(?!\s+(?:doubt|idea|clue|one|wonder|way)\b)"
_ANSWER = re.compile(rf"{_MARKUP}(yes|no)\b{_IDIOM}(.*)", re.IGNORECASE | re.DOTALL)
_CONTRADICTION = {
    # The opposite word at once ("Yes. No, ...", "yes/no", "Yes and no"), or later as an answer of its own.
    word: re.compile(rf"\W*(?:(?:and|or|but)\W+)?{word}\b|.*[.!?;:\n]\W*{word}\s*(?:[,.!?;:]|$)", re.I | re.S)
    for word in ("yes", "no")
}


def parse_yes_no(text: str) -> bool | None:
    """Read the verdict of a description.

    Args:
        text: an answer to "is there a defect?".

    Returns:
        True for yes, False for no, None unless the text begins (after white space, quotes and markup) with the whole
        word "yes" or "no" in any case and does not take it back ("Yes. No, ...", "yes or no").
    """
    answer = _ANSWER.match(text)
    if answer is None:
        return None
    word, rest = answer[1].lower(), answer[2]
    opposite = "no" if word == "yes" else "yes"
    return None if _CONTRADICTION[opposite].match(rest) else word == "yes"


def description_accuracy(predictions: Sequence[str], is_defective: Sequence[bool | int]) -> dict[str, float]:
    """Share of the descriptions whose verdict is right; one without a verdict counts as wrong.

    Args:
        predictions: the texts.
        is_defective: what each image shows (bool, or 0 and 1), as many.

    Returns:
        "accuracy" in [0, 1], and "unparsed", the share without a verdict, in [0, 1].

    Raises:
        UndefinedMetricError: no texts.
        ValueError: different lengths, or a label that is not true or false (for example an unknown one).
    """
    if len(predictions) != len(is_defective):
        raise ValueError(f"{len(predictions)} predictions but {len(is_defective)} labels")
    if not predictions:
        raise UndefinedMetricError("no descriptions were given")
    unknown = [label for label in is_defective if label not in (0, 1)]
    if unknown:
        raise ValueError(f"is_defective must be true or false, got {unknown[0]!r}")
    verdicts = [parse_yes_no(text) for text in predictions]
    right = sum(verdict == label for verdict, label in zip(verdicts, is_defective, strict=True))
    return {"accuracy": right / len(verdicts), "unparsed": verdicts.count(None) / len(verdicts)}
