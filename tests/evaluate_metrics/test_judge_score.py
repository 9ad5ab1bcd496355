"""The module judge_score, against a local endpoint, and its Space."""

import json
import runpy
from pathlib import Path

import evaluate
import pytest
from PIL import Image

from defect_hub.evaluate_metrics.judge import PROMPT, PROMPT_VERSION
from tests.evaluate_metrics.judge_server import RATINGS, JudgeServer, completion, description_of

FOLDER = Path(__file__).parents[2] / "evaluate_metrics" / "judge_score"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with JudgeServer() as local:
        yield local


def test_batches_are_judged_and_added_up(server, tmp_path):
    images = [str(tmp_path / f"{number}.png") for number in range(3)]
    for number, path in enumerate(images):
        Image.new("L", (4, 4), number).save(path)
    server.answer = lambda body: completion("?" if description_of(body) == "c" else json.dumps(RATINGS))
    metric = evaluate.load(str(FOLDER))
    metric.add_batch(predictions=["a", "b"], references=["", "a dent"], images=images[:2])
    metric.add(prediction="c", reference="", images=images[2])
    found = metric.compute(
        base_url=server.url, model="tiny", record=tmp_path / "record.jsonl", concurrency=1, progress=False
    )
    about = {"n_judged": 2, "n_unjudged": 1, "judge_model": "tiny", "prompt_version": PROMPT_VERSION}
    assert found == {"judge_score": 72.5, **RATINGS, **about}
    told = [json.loads(body["messages"][1]["content"][-1]["text"]) for body in server.asked[:3]]
    assert told == [{"description": "a"}, {"description": "b", "reference_answer": "a dent"}, {"description": "c"}]


def test_example_of_the_card_runs(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("L", (4, 4)).save("part.png")
    example = (FOLDER / "README.md").read_text(encoding="utf-8").split("```python\n")[2].split("```")[0]
    found: dict = {}
    exec(
        example.replace('"evaluate_metrics/', f'"{FOLDER.parent}/').replace("http://localhost:8000/v1", server.url),
        found,
    )
    assert found["result"]["judge_score"] == 72.5
    assert len(Path("judgements.jsonl").read_text().splitlines()) == 1


def test_app_adds_up_pasted_answers():
    app = runpy.run_path(str(FOLDER / "app.py"))
    found = app["compute"](app["EXAMPLE"])
    assert (found["judge_score"], found["n_judged"], found["n_unjudged"]) == (55.0, 2, 1)
    assert list(found["unjudged"]) == ["row 3"]
    assert PROMPT in app["ABOUT"]
    assert "judge_score" not in app["compute"]([["no answer"]])


def test_what_is_missing_is_named():
    metric = evaluate.load(str(FOLDER))
    with pytest.raises(ValueError, match="give images: each sample needs predictions, references, images"):
        metric.add_batch(predictions=["A scratch."], references=[""])
    with pytest.raises(ValueError, match="give base_url, model, record to compute"):
        metric.compute(predictions=["A scratch."], references=[""], images=["a.png"])
