"""Models, from the checkpoint over the Hub to somebody who has neither our package nor a token."""

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file
from transformers import Pipeline, pipeline

from defect_hub.embedded import EMBEDDED_CHECKPOINT
from tests.modeling.test_handler import SERVE, decoded
from tests.publishing.scene import ROOT, Scene, blocks

pytestmark = pytest.mark.slow
EXAMPLES = ROOT / "spaces" / "defect_diagnosis" / "examples"
PICTURES = {"image.jpg": "scratch.jpg", "ok1.jpg": "normal.jpg", "ok2.jpg": "crazing.jpg"}
# Behind the code of a card: writes down what it found and whose code it ran.
RECORD = """
import importlib.util, json
import numpy
numpy.savez("maps.npz", **{name: report.pop(name) for name in ("anomaly_map", "mask")})
owner = type(pipe.model if "pipe" in globals() else model).__module__.split(".")[0]
installed = importlib.util.find_spec("defect_hub") is not None
print(json.dumps({"owner": owner, "installed": installed, **report}))
"""
TOLERANCE = 1e-6
"""Of scores and map values: equal libraries on one machine."""


@pytest.fixture(scope="module")
def embedded() -> Pipeline:
    return pipeline("defect-diagnosis", model=str(EMBEDDED_CHECKPOINT))


def desk_of_reader(scene: Scene) -> Path:
    """A folder with the pictures that a card speaks of."""
    folder = scene.folder()
    for name, example in PICTURES.items():
        shutil.copyfile(EXAMPLES / example, folder / name)
    return folder


def few_shot(pipe: Pipeline, folder: Path) -> dict[str, Any]:
    return pipe(str(folder / "image.jpg"), reference_images=[str(folder / name) for name in ("ok1.jpg", "ok2.jpg")])


def diagnosed(scene: Scene, code: str, folder: Path, package: bool) -> dict[str, Any]:
    """What the code of a card finds, its maps too."""
    found = json.loads(scene.python(code + RECORD, folder=folder, package=package))
    assert found.pop("installed") is package
    assert found.pop("owner") == ("defect_hub" if package else "transformers_modules")
    with np.load(folder / "maps.npz") as maps:
        return {**found, **maps}


def assert_same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found.keys() == wanted.keys()
    assert np.abs(found["anomaly_map"] - wanted["anomaly_map"]).max() <= TOLERANCE
    assert np.array_equal(found["mask"], wanted["mask"])
    assert found["score"] == pytest.approx(wanted["score"], abs=TOLERANCE)
    for name in found.keys() - {"anomaly_map", "mask", "score", "regions"}:
        assert found[name] == wanted[name]
    assert [region["box"] for region in found["regions"]] == [region["box"] for region in wanted["regions"]]
    assert found["description"]


def test_code_of_the_card_diagnoses_like_the_local_checkpoint(scene: Scene, model: str, embedded: Pipeline) -> None:
    with_package, without = blocks(scene.card("model", model), "python")
    assert "trust_remote_code" not in with_package and "defect_hub" not in without
    folders = [desk_of_reader(scene), desk_of_reader(scene)]
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(partial(diagnosed, scene), (with_package, without), folders, (True, False)))
    wanted = few_shot(embedded, folders[0])
    for one in found:
        assert_same(one, wanted)


@contextmanager
def listening() -> Iterator[tuple[str, list[bytes]]]:
    """An address that keeps what is posted to it."""
    bodies: list[bytes] = []

    class Keep(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Keep) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/", bodies
        server.shutdown()
        thread.join()


def test_endpoint_of_the_repository_answers(scene: Scene, model: str, embedded: Pipeline) -> None:
    shown = blocks(scene.card("model", model), "bash")
    send, check = (next(code for code in shown if word in code) for word in ("curl", "sha256sum"))
    folder = scene.clone("model", model).parent
    assert "run.json: OK" in scene.shell(f"cd clone; {check}", folder)
    (folder / "clone").rename(folder / "model")
    shutil.copyfile(EXAMPLES / "scratch.jpg", folder / "image.jpg")
    with listening() as (url, bodies):
        scene.shell(send, folder, ENDPOINT_URL=url, HF_TOKEN="of the reader")
    (folder / "request.json").write_bytes(bodies[0])
    assert scene.python(SERVE, str(folder), folder=folder, HF_HUB_OFFLINE="1") == "served"
    answer, wanted = json.loads((folder / "answer.json").read_text()), embedded(str(folder / "image.jpg"))
    assert answer["score"] == pytest.approx(wanted["score"], abs=TOLERANCE)
    assert np.array_equal(decoded(answer["mask"]), wanted["mask"])
    assert (answer["is_defective"], answer["description"]) == (wanted["is_defective"], wanted["description"])


def test_adapters_meet_their_base_models_again(scene: Scene, adapters: str, tiny_checkpoint: Path) -> None:
    pipe = pipeline("defect-diagnosis", model=str(tiny_checkpoint))
    _, code = blocks(scene.card("model", adapters), "python")
    folder, seen = desk_of_reader(scene), len(scene.hub.log)
    assert_same(diagnosed(scene, code, folder, False), few_shot(pipe, folder))
    fetched = {one.path for one in scene.hub.log[seen:] if one.path.endswith(".safetensors")}
    assert {path.split("/resolve/")[0] for path in fetched} == {"/org/clip", "/org/llama", f"/{adapters}"}


def test_adapters_hold_no_tensor_of_their_bases(scene: Scene, adapters: str, tmp_path: Path) -> None:
    def tensors(repo_id: str) -> dict[str, set[bytes]]:
        """Bytes of the weights, by name; shapes of a few numbers are equal by chance."""
        found = {}
        for path, data in scene.hub.files("model", repo_id).items():
            if path.endswith(".safetensors"):
                (tmp_path / "weights").write_bytes(data)
                loaded = load_file(tmp_path / "weights")
                found |= {name: tensor.numpy().tobytes() for name, tensor in loaded.items() if tensor.numel() > 16}
        return found

    own = tensors(adapters)
    assert own and not {*own.values()} & {*tensors("org/clip").values(), *tensors("org/llama").values()}
    base = json.loads(scene.hub.files("model", adapters)["config.json"])["base_models"]
    assert base == {
        part: {"repo_id": repo_id, "revision": scene.hub.commits("model", repo_id)[0]["oid"]}
        for part, repo_id in (("clip", "org/clip"), ("language_model", "org/llama"))
    }
