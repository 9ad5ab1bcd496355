"""JSON files with an error that names the place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from defect_hub.dataset_scripts.readers.errors import DataError


def read_json(path: Path, kind: type) -> Any:
    """Content of a UTF-8 JSON file.

    Args:
        path: The file.
        kind: Expected type of the top level, `list` or `dict`.

    Raises:
        DataError: The file is missing, malformed or of another type.
    """
    try:
        content = json.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise DataError(path, "JSON", f"cannot be read ({error.strerror})", "Supply the file") from error
    except ValueError as error:
        raise DataError(path, "JSON", f"malformed ({error})", "Correct the file or fetch it again") from error
    if not isinstance(content, kind):
        found = f"top level is a {type(content).__name__}, expected a {kind.__name__}"
        raise DataError(path, "JSON", found, "Check that this is the right file")
    return content
