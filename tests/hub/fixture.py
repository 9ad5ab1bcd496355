"""The fixture of the local Hub; a test file takes it by `from tests.hub.fixture import hub as hub`."""

from collections.abc import Iterator

import pytest

from tests.hub.server import LocalHub


@pytest.fixture
def hub(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """An empty Hub, also for `huggingface_hub` in this process."""
    with LocalHub(tmp_path_factory.mktemp("hub")) as local:
        local.attach(monkeypatch)
        yield local
