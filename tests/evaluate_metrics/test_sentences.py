"""Sentence-BERT similarity against embeddings pooled by hand, with a tiny random model in real files."""

import sys

import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer

from defect_hub.evaluate_metrics.sentences import sentence_similarity
from tests.evaluate_metrics.sentence_models import save_tiny_sentence_bert

PREDICTIONS = ["a dark scratch in the top left", "No defect.", "裂纹", "a hole"]
REFERENCES = [["a scratch", "dark line at the top left"], ["the surface is clean"], ["裂纹 here"], ["two holes", "a"]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_sentence_bert(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def cosine(folder):
    """The cosine of two texts, each embedded alone: mean of the last hidden states over its tokens."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()

    @torch.inference_mode()
    def embedding(text):
        return model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].double().mean(0)

    return lambda a, b: float(torch.cosine_similarity(embedding(a), embedding(b), dim=0))


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_equals_mean_pooling_by_hand(folder, cosine, batch_size):
    pairs = zip(PREDICTIONS, REFERENCES, strict=True)
    expected = sum(max(cosine(text, one) for one in given) for text, given in pairs) / len(PREDICTIONS)
    found = sentence_similarity(PREDICTIONS, REFERENCES, folder, batch_size=batch_size)
    assert found == {"sentence_similarity": pytest.approx(expected, abs=1e-6)}
    assert -1 < expected < 0.99


def test_of_several_references_the_nearest_counts(folder):
    alone = [sentence_similarity(["a dent"], [one], folder)["sentence_similarity"] for one in ("a hole", "clean")]
    both = sentence_similarity(["a dent"], [["a hole", "clean"]], folder)["sentence_similarity"]
    assert both == pytest.approx(max(alone), abs=1e-6)
    assert abs(alone[0] - alone[1]) > 1e-3


def test_folder_and_loaded_model_are_the_same_and_copies_score_one(folder):
    loaded = SentenceTransformer(str(folder), device="cpu")
    by_folder = sentence_similarity(PREDICTIONS, PREDICTIONS[::-1], str(folder))
    assert sentence_similarity(PREDICTIONS, PREDICTIONS[::-1], loaded) == by_folder
    assert sentence_similarity(PREDICTIONS, PREDICTIONS, loaded)["sentence_similarity"] == pytest.approx(1, abs=1e-6)


def test_each_text_is_embedded_once(folder, monkeypatch):
    loaded = SentenceTransformer(str(folder), device="cpu")
    embedded = []
    monkeypatch.setattr(loaded, "encode", lambda texts, **more: (embedded.extend(texts), torch.eye(len(texts)))[1])
    assert sentence_similarity(["a", "b", "a"], [["a"], ["a"], ["c", "a"]], loaded)["sentence_similarity"] == 2 / 3
    assert embedded == ["a", "b", "c"]


def test_an_empty_prediction_counts_nothing(folder):
    found = sentence_similarity(["", " .", "a dent"], ["a dent"] * 3, folder)
    assert found["sentence_similarity"] == pytest.approx(1 / 3, abs=1e-6)


def test_progress_is_shown_where_asked(folder, capsys):
    sentence_similarity(["a"], ["b"], folder)
    assert "Batches" not in capsys.readouterr().err
    sentence_similarity(["a"], ["b"], folder, progress=True)
    assert "Batches" in capsys.readouterr().err


def test_no_texts_and_bad_texts(folder):
    assert sentence_similarity([], [], folder) == {"undefined": {"sentence_similarity": "no descriptions were given"}}
    with pytest.raises(ValueError, match="1 predictions but 0 references"):
        sentence_similarity(["a"], [], folder)


@pytest.mark.parametrize("name", ["sentence-transformers/no-such-model", "folder"])
def test_a_model_that_is_not_there_is_one_line(name, tmp_path):
    model = tmp_path if name == "folder" else name
    with pytest.raises(ValueError, match=r"^model: cannot load .*give a Hub id") as caught:
        sentence_similarity(["a"], ["b"], model)
    assert "\n" not in str(caught.value)


def test_a_missing_library_is_one_line_with_the_remedy(monkeypatch, folder):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ImportError, match=r"^Sentence-BERT needs sentence-transformers: pip install"):
        sentence_similarity(["a"], ["b"], folder)
