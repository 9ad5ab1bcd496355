"""Imports of the libraries that only some metrics need: `defect-hub[metrics]`."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needed_for(metric: str, package: str) -> Iterator[None]:
    """Name the remedy when the import inside fails.

    Args:
        metric: what needs the library, as it begins the message.
        package: its name on PyPI.

    Raises:
        ImportError: in one line, with the extra to install.
    """
    try:
        yield
    except ImportError as error:
        raise ImportError(f"{metric} needs {package}: pip install 'defect-hub[metrics]'") from error
