"""What several tests of metrics share."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def downloaded_sentence_model(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A tiny random model in the place of the default one, in the Hub's cache of this test run."""
    from huggingface_hub import constants

    from defect_hub.evaluate_metrics.sentences import DEFAULT_MODEL
    from tests.evaluate_metrics.sentence_models import cache_as, save_tiny_sentence_bert

    folder = save_tiny_sentence_bert(tmp_path_factory.mktemp("model"))
    cache_as(DEFAULT_MODEL, folder, Path(constants.HF_HUB_CACHE))
