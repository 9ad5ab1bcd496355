"""The collections of an organisation: made, filled and put in order; what others put into them stays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import huggingface_hub
from huggingface_hub import HfApi, constants

from defect_hub.publishing.hub import ask
from defect_hub.publishing.organisation import Collection, Entry
from defect_hub.publishing.staged import RepoType

Key = tuple[RepoType, str]
"""Kind and id of a repository."""


def ensure_collections(
    api: HfApi, org: str, collections: Sequence[Collection], dry_run: bool, private: bool = False
) -> list[str]:
    """Make the collections of an organisation hold what is listed, in that order.

    A collection is found by its title. What others put into it stays. A repository that is not on the Hub is left
    out; the next call adds it.

    Args:
        api: Access to the Hub.
        org: The organisation, or a user's name.
        collections: What shall be there.
        dry_run: Whether only to say what would change. Folders that are built then count as published, and offline
            there is no collection yet.
        private: Whether a new collection is seen by its owners alone.

    Returns:
        Lines for a terminal: "+" is made or added, "~" changed, "=" is there already, "?" left out.

    Raises:
        PublishError: The Hub does not answer, or refuses.
    """
    asked = not (dry_run and constants.is_offline_mode())
    found = ask(lambda: list(api.list_collections(owner=org)), f"collections of {org}") if asked else []
    slugs = {each.title: each.slug for each in found}
    lines = []
    for wanted in collections:
        about = f"collection {org}: {wanted.title}"
        slug = slugs.get(wanted.title)
        there = ask(partial(api.get_collection, slug), about) if slug else None
        if there is None and not dry_run:
            create = partial(api.create_collection, wanted.title, namespace=org, description=wanted.description)
            there = ask(partial(create, private=private, exists_ok=True), about)
        steps = _steps(api, org, wanted, there, dry_run, asked)
        if not dry_run:
            for _, call in steps:
                ask(call, about)
        changes = [line for line, _ in steps]
        unchanged = all(line.startswith("  ?") for line in changes)
        lines += [f"{'+' if slug is None else '=' if unchanged else '~'} {about}", *changes]
    return lines


def _steps(
    api: HfApi, org: str, wanted: Collection, there: huggingface_hub.Collection | None, dry_run: bool, asked: bool
) -> list[tuple[str, Callable[[], object]]]:
    """What has to change: a line to say so, and the call that does it."""
    slug = there.slug if there else ""
    present = {(item.item_type, item.item_id): item for item in there.items} if there else {}
    keys = [_key(item.entry, org) for item in wanted.items]
    steps: list[tuple[str, Callable[[], object]]] = []
    if there and there.description != wanted.description:
        update = partial(api.update_collection_metadata, slug, description=wanted.description)
        steps.append(("  ~ description", update))
    added = []
    for key, item in zip(keys, wanted.items, strict=True):
        repo_type, repo_id = key
        found = present.get(key)
        if found is None and not _is_published(api, item.entry, key, dry_run, asked):
            steps.append((f"  ? {repo_type} {repo_id}: is not on the Hub yet, left out", lambda: None))
        elif found is None:
            add = partial(api.add_collection_item, slug, repo_id, repo_type, note=item.note, exists_ok=True)
            steps.append((f"  + {repo_type} {repo_id}", add))
            added.append(key)
        elif item.note and found.note != item.note:
            change = partial(api.update_collection_item, slug, found.item_object_id, note=item.note)
            steps.append((f"  ~ {repo_type} {repo_id}: note", change))
    ordered = [key for key in keys if key in present or key in added]
    if ordered != [*(key for key in present if key in keys), *added]:
        steps.append(("  ~ order", partial(_put_in_order, api, slug, ordered)))
    return steps


def _key(entry: Entry, org: str) -> Key:
    return entry.repo_type, entry.repo_id(org)


def _is_published(api: HfApi, entry: Entry, key: Key, dry_run: bool, asked: bool) -> bool:
    if dry_run and entry.is_built:
        return True
    repo_type, repo_id = key
    return asked and ask(partial(api.repo_exists, repo_id, repo_type=repo_type), f"{repo_type} {repo_id}")


def _put_in_order(api: HfApi, slug: str, keys: Sequence[Key]) -> None:
    """Let our items take the places that ours have, in this order; others move as little as possible."""
    items = api.get_collection(slug).items
    places = [index for index, item in enumerate(items) if (item.item_type, item.item_id) in keys]
    for place, key in zip(places, keys, strict=True):
        items = api.get_collection(slug).items
        if (items[place].item_type, items[place].item_id) != key:
            moved = next(item for item in items if (item.item_type, item.item_id) == key)
            api.update_collection_item(slug, moved.item_object_id, position=items[place].position)
