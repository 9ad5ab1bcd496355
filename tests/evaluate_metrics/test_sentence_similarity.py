"""The module sentence_similarity and its Space, with a tiny model in the cache in place of the default one."""

import doctest
import runpy
from pathlib import Path

import evaluate
import pytest

from defect_hub.evaluate_metrics.sentences import sentence_similarity
from tests.evaluate_metrics.sentence_models import save_tiny_sentence_bert

FOLDER = Path(__file__).parents[2] / "evaluate_metrics" / "sentence_similarity"
PREDICTIONS = ["a dark scratch", "no defect", "a hole"]
SEVERAL = [["a scratch", "dark line"], ["the surface is clean"], ["two holes"]]

pytestmark = pytest.mark.usefixtures("downloaded_sentence_model")


@pytest.mark.parametrize("references", [[given[0] for given in SEVERAL], SEVERAL], ids=["one", "several"])
def test_batches_equal_the_function(references):
    metric = evaluate.load(str(FOLDER))
    metric.add_batch(predictions=PREDICTIONS[:2], references=references[:2])
    metric.add(prediction=PREDICTIONS[2], reference=references[2])
    assert metric.compute() == sentence_similarity(PREDICTIONS, references)


def test_model_is_an_argument_of_compute(tmp_path):
    folder = save_tiny_sentence_bert(tmp_path)
    found = evaluate.load(str(FOLDER)).compute(
        predictions=PREDICTIONS, references=SEVERAL, model=str(folder), batch_size=1
    )
    assert found == pytest.approx(sentence_similarity(PREDICTIONS, SEVERAL, folder), abs=1e-6)


def test_app_computes_its_example():
    app = runpy.run_path(str(FOLDER / "app.py"))
    predictions, references = map(list, zip(*app["EXAMPLE"], strict=True))
    assert app["compute"](app["EXAMPLE"]) == sentence_similarity(predictions, references)


def test_example_of_the_card_prints_what_it_says(capsys):
    example = (FOLDER / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    exec(example.replace('"evaluate_metrics/', f'"{FOLDER.parent}/'), {})
    stated = example.rsplit("# ", 1)[1]
    assert doctest.OutputChecker().check_output(stated, capsys.readouterr().out, doctest.ELLIPSIS)
