"""A whole organisation by one command: shown, made, and made again without any change."""

import shutil
from pathlib import Path

import pytest

from tests.hub.faults import Exchange
from tests.publishing.scene import ROOT, Scene

pytestmark = pytest.mark.slow
ORG = "works"
METRICS = Path(__file__).parents[2] / "evaluate_metrics"
PUBLISHED = {
    "dataset": ["steelsynth"],
    "model": ["spgdd-gpt-tiny"],
    "space": ["defect-diagnosis", *sorted(card.parent.name for card in METRICS.glob("*/README.md"))],
}
MISSING = ["steeldefectx", "tadd", "mmio"]


@pytest.fixture(scope="module")
def clone(scene: Scene, steel: Path) -> Path:
    """What a clone of the project has for its organisation, and one built data set."""
    scene.hub.accounts[scene.hub.token].orgs.append(ORG)
    folder = scene.desk / "clone"
    for name in ("spaces", "evaluate_metrics", "defect_hub/checkpoints"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(steel, folder / "steelsynth")
    shutil.copyfile(ROOT / "organisation.yaml", folder / "organisation.yaml")
    return folder


def everything(root: Path) -> dict[Path, bytes]:
    """All that the Hub has on its disk."""
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def is_question(one: Exchange) -> bool:
    return one.method in ("GET", "HEAD") or one.path.endswith("/api/validate-yaml")


def test_shown_then_made_then_left_alone(scene: Scene, clone: Path) -> None:
    command = ("all", "--org", ORG)
    empty = everything(scene.hub.root)
    seen = len(scene.hub.log)
    said = scene.publish(*command, "--dry-run", place=clone)
    assert [str(one) for one in scene.hub.log[seen:] if not is_question(one)] == []
    assert everything(scene.hub.root) == empty
    for kind, names in PUBLISHED.items():
        assert all(f"{kind} {ORG}/{name} (new, public)" in said for name in names)
    for name in MISSING:
        line = next(line for line in said.splitlines() if f" {ORG}/{name} " in line)
        assert "is missing: defect-hub data build" in line
    assert said.count(f"+ collection {ORG}: ") == 3

    with pytest.raises(AssertionError, match="steeldefectx, tadd, mmio: not built; build them or give --skip-missing"):
        scene.publish(*command, place=clone)
    assert everything(scene.hub.root) == empty

    scene.publish(*command, "--skip-missing", place=clone)
    for kind, names in PUBLISHED.items():
        assert {name: len(scene.hub.commits(kind, f"{ORG}/{name}")) for name in names} == dict.fromkeys(names, 2)
    assert not any(scene.hub.repo("dataset", f"{ORG}/{name}").exists for name in MISSING)
    found = {each.title: [item.item_id for item in each.items] for each in collections(scene)}
    assert [len(items) for items in found.values()] == [6, 1, 18]
    assert found["Industrial defect data sets"] == [f"{ORG}/steelsynth"]

    made, seen = everything(scene.hub.root), len(scene.hub.log)
    said = scene.publish(*command, "--skip-missing", place=clone)
    assert [str(one) for one in scene.hub.log[seen:] if not is_question(one)] == []
    assert everything(scene.hub.root) == made
    assert said.count("nothing to change") == sum(map(len, PUBLISHED.values()))
    assert said.count(f"= collection {ORG}: ") == 3


def collections(scene: Scene) -> list:
    with pytest.MonkeyPatch.context() as patch:
        scene.hub.attach(patch)
        api = scene.hub.api()
        return [api.get_collection(each.slug) for each in api.list_collections(owner=ORG)]
