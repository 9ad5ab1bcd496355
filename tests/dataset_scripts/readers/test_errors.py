import pickle
from pathlib import Path

from defect_hub.dataset_scripts.readers.errors import DataError


def test_message_is_one_line() -> None:
    error = DataError(Path("a/b.png"), "mask", "two\nlines", "Mend it")
    assert str(error) == "a/b.png: mask: two lines. Mend it"


def test_survives_pickle() -> None:
    error = DataError("a.jpg", "image", "is broken", "Replace it")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.field) == (str(error), "image")
