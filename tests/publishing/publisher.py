"""A publication in a process of its own, which a test may kill; it starts quickly, forked from a prepared server."""

import os
from multiprocessing.context import ForkServerProcess

from huggingface_hub import constants

from defect_hub.publishing.staged import Staged
from defect_hub.publishing.upload import Target, publish
from tests.fork_server import forked
from tests.hub.server import LocalHub


def publisher(hub: LocalHub, staged: Staged, target: Target, max_operations: int) -> ForkServerProcess:
    """Return a process, not started yet, that publishes."""
    return forked(_publish, hub.url, hub.token, staged, target, max_operations)


def _publish(url: str, token: str, staged: Staged, target: Target, max_operations: int) -> None:
    constants.HF_HUB_OFFLINE = False
    constants.HF_HUB_DISABLE_XET = True
    constants.ENDPOINT = url
    constants.HUGGINGFACE_CO_URL_TEMPLATE = url + "/{repo_id}/resolve/{revision}/{filename}"
    os.environ["HF_TOKEN"] = token
    publish(staged, target, max_operations=max_operations, say=lambda line: None)
