"""Fetch a release from the Hub."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.steeldefectx.release import DESCRIPTIONS_FILE, SPLITS

REPO_ID = re.compile(r"[\w.-]+/[\w.-]+")
RELEASE_FILES = [
    DESCRIPTIONS_FILE,
    *(f"{split}{part}" for split in SPLITS for part in ("/*", "_mask/*", "-text.json")),
]


def local_release(raw: str, revision: str | None = None) -> Path:
    """Folder of a release, fetched first where `raw` is a Hub id.

    An interrupted download goes on where it stopped; a complete one is taken from the cache.

    Args:
        raw: A local folder, or the id of a data set repository such as "Zhaosxian/SteelDefectX".
        revision: Branch, tag or commit of the repository; None: its main branch.

    Raises:
        DataError: There is neither such a folder nor such a repository, or it cannot be reached.
    """
    folder = Path(raw)
    if folder.exists() or not REPO_ID.fullmatch(raw):
        return folder
    try:
        fetched = snapshot_download(raw, repo_type="dataset", revision=revision, allow_patterns=RELEASE_FILES)
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        remedy = "Check the id and the connection (HF_HUB_OFFLINE, HF_ENDPOINT), or give a local folder"
        problem = f"is no local folder and cannot be fetched ({type(error).__name__})"
        raise DataError(raw, "raw", problem, remedy) from error
    return Path(fetched)
