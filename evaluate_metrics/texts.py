"""What every metric of texts accepts: one text per image, and one or several reference texts for each."""

import re
import unicodedata
from collections.abc import Sequence

References = Sequence[str] | Sequence[Sequence[str]]

# Chinese and Japanese put no spaces between words: there, each character is one.
_IDEOGRAPHS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(rf"[{_IDEOGRAPHS}]|[^\W_{_IDEOGRAPHS}]+")


def words(text: str) -> list[str]:
    """Split a text into lower-case words of letters and digits of any script; punctuation is dropped."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).lower())


def check_texts(predictions: Sequence[str], references: References) -> list[list[str]]:
    """Return the references as one list per prediction.

    Args:
        predictions: N texts; an empty one is allowed, it is a bad description.
        references: N texts, or N sequences of one or more texts.

    Raises:
        ValueError: other numbers of texts, something that is no text, or a reference without words.
    """
    if isinstance(predictions, str) or isinstance(references, str):
        raise ValueError("predictions and references must be sequences of texts, got one text: put it in a list")
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions but {len(references)} references")
    lists = [[given] if isinstance(given, str) else list(given) for given in references]
    for number, (prediction, given) in enumerate(zip(predictions, lists, strict=True)):
        if not isinstance(prediction, str):
            raise ValueError(f"predictions[{number}] must be a text, got {prediction!r}")
        if not given:
            raise ValueError(f"references[{number}] is empty: give at least one text, or leave the image out")
        for text in given:
            if not isinstance(text, str) or not words(text):
                raise ValueError(f"references[{number}] must hold texts with words, got {text!r}")
    return lists
