"""Metrics and Spaces, fetched from the Hub and started where our package is installed."""

import json

import numpy as np
import pytest
from gradio_client import Client, handle_file
from PIL import Image

from defect_hub.diagnose import load_pipeline
from defect_hub.embedded import EMBEDDED_CHECKPOINT
from defect_hub.evaluate_metrics.apps import write_example
from defect_hub.evaluate_metrics.kernels import PixelScores, auroc
from tests.publishing.scene import ROOT, Scene, blocks

pytestmark = pytest.mark.slow
# Behind the code of a card, which leaves `metric`; argv: a file with maps and masks.
MEASURE = """
import json, sys
data = np.load(sys.argv[1])
for one_map, one_mask in zip(data["maps"], data["masks"]):
    metric.add(prediction=one_map, reference=one_mask)
print(json.dumps(metric.compute()))
"""


@pytest.mark.parametrize("name", ["pixel_auroc", "pixel_metrics"])
def test_metric_is_loaded_by_its_id(scene: Scene, metric: str, name: str) -> None:
    repo_id = f"org/{name}"
    if repo_id != metric:
        scene.publish("metric", str(ROOT / "evaluate_metrics" / name), "--repo", repo_id)
    folder, generator = scene.folder(), np.random.default_rng(0)
    masks = generator.random((3, 32, 40)) > 0.8
    maps = (generator.random(masks.shape) + 0.3 * masks).astype(np.float32)
    np.savez(folder / "data.npz", maps=maps, masks=masks)
    (code,) = blocks(scene.card("space", repo_id), "python")
    assert f'evaluate.load("{repo_id}")' in code
    found = json.loads(scene.python(code + MEASURE, "data.npz", folder=folder, package=True))
    kernel = PixelScores()
    kernel.update(maps, masks)
    assert found == (kernel.compute() if name == "pixel_metrics" else {"pixel_auroc": auroc(maps, masks)})


def test_space_runs_the_model_that_its_card_names(scene: Scene, space: str) -> None:
    clone = scene.clone("space", space)
    example = clone / "examples" / "scratch.jpg"
    pipe = load_pipeline(str(EMBEDDED_CHECKPOINT))  # in the number format of this machine, as in the Space
    wanted, name = pipe(str(example)), pipe.processor.object_name
    seen = len(scene.hub.log)
    with scene.serving(clone / "app.py") as url:
        client = Client(url, verbose=False)
        answer = client.predict(handle_file(str(example)), [], name, True, 0, api_name="/diagnose")
    assert any(one.path.startswith("/org/spgdd-gpt/resolve/") for one in scene.hub.log[seen:])
    verdict, record = answer[0], answer[-1]
    assert f"<strong>{'Defective' if wanted['is_defective'] else 'Normal'}</strong>" in verdict
    assert record["is_defective"] is wanted["is_defective"] is True
    assert record["score"] == pytest.approx(wanted["score"], abs=1e-5)
    assert record["description"] == wanted["description"]


def test_app_of_a_metric_measures_its_example(scene: Scene, metric: str) -> None:
    clone = scene.clone("space", metric)
    files = write_example(scene.folder())
    score_map, mask = (np.asarray(Image.open(file).convert("L")) for file in files)
    with scene.serving(clone / "app.py") as url:
        answer = Client(url, verbose=False).predict(*(handle_file(file) for file in files), api_name="/compute")
    assert answer == {"pixel_auroc": pytest.approx(auroc(score_map, mask > 0), abs=1e-6)}


def test_repositories_hold_what_their_folders_do(scene: Scene, metric: str, space: str) -> None:
    for repo_id, folder in ((metric, "evaluate_metrics/pixel_auroc"), (space, "spaces/defect_diagnosis")):
        local = {path.relative_to(ROOT / folder).as_posix() for path in (ROOT / folder).rglob("*.*")}
        local = {name for name in local if not name.endswith(".pyc")}
        files = scene.hub.files("space", repo_id)
        assert files.keys() == local | {"SHA256SUMS", ".gitattributes"}
        assert all(files[name] == (ROOT / folder / name).read_bytes() for name in local if name.endswith(".py"))
