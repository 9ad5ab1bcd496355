"""Collections on the local Hub: made once, filled, put in order, and what others added stays."""

from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants

from defect_hub.publishing import hub as hub_calls
from defect_hub.publishing.collection import ensure_collections
from defect_hub.publishing.hub import PublishError
from defect_hub.publishing.organisation import Collection, Entry, Item
from tests.hub.fixture import hub as hub
from tests.hub.server import LocalHub

ONE, TWO, THREE = (Entry("dataset", name, Path("missing")) for name in ("one", "two", "three"))
METRIC = Entry("metric", "auroc", Path("missing"))
WANTED = Collection("All", "Everything.", (Item(ONE, "First."), Item(TWO), Item(METRIC, "Exact.")))
FILLED = [("dataset", "org/one", "First."), ("dataset", "org/two", None), ("space", "org/auroc", "Exact.")]
UNCHANGED = ["= collection org: All"]


@pytest.fixture
def api(hub: LocalHub) -> HfApi:
    """A Hub with the repositories, without collections."""
    client = hub.api()
    for name in ("one", "two", "three", "foreign", "other"):
        client.create_repo(f"org/{name}", repo_type="dataset")
    client.create_repo("org/auroc", repo_type="space", space_sdk="gradio")
    return client


def made(api: HfApi, *items: tuple[str, str, str | None], description: str = "Everything.") -> str:
    """A collection that somebody filled by hand."""
    slug = api.create_collection("All", namespace="org", description=description).slug
    for kind, name, note in items:
        api.add_collection_item(slug, f"org/{name}", kind, note=note)
    return slug


def items(api: HfApi) -> list[tuple[str, str, str | None]]:
    (found,) = api.list_collections(owner="org")
    return [(item.item_type, item.item_id, item.note) for item in api.get_collection(found.slug).items]


def writes(hub: LocalHub) -> int:
    return len(hub.log) - len(hub.log.find("GET"))


def test_a_collection_is_made_once(hub: LocalHub, api: HfApi) -> None:
    lines = ensure_collections(api, "org", [WANTED], dry_run=False, private=True)
    assert lines == ["+ collection org: All", "  + dataset org/one", "  + dataset org/two", "  + space org/auroc"]
    assert items(api) == FILLED
    (found,) = api.list_collections(owner="org")
    assert (found.private, found.description) == (True, "Everything.")
    before = writes(hub)
    assert ensure_collections(api, "org", [WANTED], dry_run=False) == UNCHANGED
    assert writes(hub) == before


def test_what_others_added_stays_and_the_order_is_ours(api: HfApi) -> None:
    by_hand = (("space", "auroc", "Old."), ("dataset", "foreign", None), ("dataset", "one", None))
    made(api, *by_hand, description="Something.")
    assert ensure_collections(api, "org", [WANTED], dry_run=False) == [
        "~ collection org: All",
        "  ~ description",
        "  ~ dataset org/one: note",
        "  + dataset org/two",
        "  ~ space org/auroc: note",
        "  ~ order",
    ]
    assert [item for item in items(api) if item[1] != "org/foreign"] == FILLED
    assert ("dataset", "org/foreign", None) in items(api)
    assert ensure_collections(api, "org", [WANTED], dry_run=False) == UNCHANGED


def test_every_order_is_put_right(api: HfApi) -> None:
    wanted = Collection("All", "Everything.", (Item(ONE), Item(TWO), Item(THREE)))
    made(api, *(("dataset", name, None) for name in ("foreign", "three", "one", "other", "two")))
    assert ensure_collections(api, "org", [wanted], dry_run=False) == ["~ collection org: All", "  ~ order"]
    names = [name.removeprefix("org/") for _, name, _ in items(api)]
    assert names[0] == "foreign"
    assert [name for name in names if name not in ("foreign", "other")] == ["one", "two", "three"]


def test_what_is_not_published_waits(api: HfApi) -> None:
    api.delete_repo("org/one", repo_type="dataset")
    lines = ensure_collections(api, "org", [WANTED], dry_run=False)
    assert lines[1] == "  ? dataset org/one: is not on the Hub yet, left out"
    assert ensure_collections(api, "org", [WANTED], dry_run=False) == [*UNCHANGED, lines[1]]
    api.create_repo("org/one", repo_type="dataset")
    lines = ensure_collections(api, "org", [WANTED], dry_run=False)
    assert lines == ["~ collection org: All", "  + dataset org/one", "  ~ order"]
    assert items(api) == FILLED


def test_a_dry_run_writes_nothing(hub: LocalHub, api: HfApi, tmp_path: Path) -> None:
    api.delete_repo("org/auroc", repo_type="space")
    built = Entry("dataset", "new", tmp_path)
    wanted = Collection("All", "Everything.", (Item(built), Item(TWO), Item(METRIC)))
    before = writes(hub)
    assert ensure_collections(api, "org", [wanted], dry_run=True) == [
        "+ collection org: All",
        "  + dataset org/new",
        "  + dataset org/two",
        "  ? space org/auroc: is not on the Hub yet, left out",
    ]
    assert writes(hub) == before
    made(api, ("dataset", "two", None))
    before = writes(hub)
    lines = ensure_collections(api, "org", [wanted], dry_run=True)
    assert lines[:3] == ["~ collection org: All", "  + dataset org/new", lines[2]]
    assert lines[-1] == "  ~ order"
    assert writes(hub) == before


def test_a_dry_run_offline_asks_nobody(hub: LocalHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    wanted = Collection("All", "Everything.", (Item(Entry("dataset", "one", tmp_path)), Item(TWO)))
    lines = ensure_collections(hub.api(), "org", [wanted], dry_run=True)
    assert [line[:3] for line in lines] == ["+ c", "  +", "  ?"]
    assert not hub.log


def test_a_lost_answer_makes_no_second_collection(hub: LocalHub, api: HfApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_calls, "FIRST_WAIT", 0.0)
    hub.faults.add("POST", "/api/collections$", drop_answer_at=0)
    ensure_collections(api, "org", [WANTED], dry_run=False)
    assert items(api) == FILLED


def test_who_may_not_write_is_told_so(hub: LocalHub, api: HfApi) -> None:
    with pytest.raises(PublishError, match=r"^collection org: All: the Hub answered 403.*write access"):
        ensure_collections(hub.api(hub.read_token), "org", [WANTED], dry_run=False)
