from collections.abc import Iterator
from pathlib import Path

import pytest

from defect_hub.embedded import EMBEDDED_CHECKPOINT
from tests.hub.fixture import hub as hub  # A fixture.
from tests.hub.server import LocalHub
from tests.publishing.scene import ROOT, Scene


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A Hub that the end-to-end tests share, and who uses it; each publishes and reads repositories of its own."""
    root = tmp_path_factory.mktemp("scene")
    with LocalHub(root / "hub") as local:
        yield Scene(local, root)


@pytest.fixture(scope="session")
def steel(scene: Scene) -> Path:
    """Built data set, published as org/steeldefectx and tagged."""
    from defect_hub.dataset_scripts.steelsynth.build import build_steelsynth

    build_steelsynth(scene.desk / "steelsynth", n=60, workers=2)
    scene.publish("dataset", "steelsynth", "--repo", "org/steeldefectx", "--tag", "v1.0.0")
    return scene.desk / "steelsynth"


@pytest.fixture(scope="session")
def model(scene: Scene) -> str:
    """The embedded checkpoint, published."""
    scene.publish("model", str(EMBEDDED_CHECKPOINT), "--repo", "org/spgdd-gpt")
    return "org/spgdd-gpt"


@pytest.fixture(scope="session")
def adapters(scene: Scene, tiny_checkpoint: Path) -> str:
    """The trained parts of a checkpoint whose base models are repositories of others."""
    from transformers import AutoModel

    from tests.modeling.base_repos import clip_of, llama_of

    whole = AutoModel.from_pretrained(tiny_checkpoint)
    for name, base in {"clip": clip_of(whole), "llama": llama_of(whole)}.items():
        base.save_pretrained(scene.root / name)
        with pytest.MonkeyPatch.context() as patch:
            scene.hub.attach(patch)
            scene.hub.api().create_repo(f"org/{name}")
            scene.hub.api().upload_folder(repo_id=f"org/{name}", folder_path=scene.root / name)
    base = ("clip=org/clip", "language_model=org/llama@main")
    scene.publish("model", str(tiny_checkpoint), "--repo", "org/spgdd-gpt-adapters", "--base", *base)
    return "org/spgdd-gpt-adapters"


@pytest.fixture(scope="session")
def metric(scene: Scene) -> str:
    """A metric, published."""
    scene.publish("metric", str(ROOT / "evaluate_metrics" / "pixel_auroc"), "--repo", "org/pixel_auroc")
    return "org/pixel_auroc"


@pytest.fixture(scope="session")
def space(scene: Scene, model: str) -> str:
    """The Space, published with the model that it runs."""
    space = str(ROOT / "spaces" / "defect_diagnosis")
    scene.publish("space", space, "--repo", "org/defect-diagnosis", "--model", model)
    return "org/defect-diagnosis"
