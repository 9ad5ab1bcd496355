"""The public sets of MMIO's scenes that a user has, as samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from defect_hub.dataset_scripts.mmio.categories import default_novel, read_novel
from defect_hub.dataset_scripts.mmio.data import SPLIT_ID, SYSTEMATIC, MmioData
from defect_hub.dataset_scripts.mmio.scenes import SceneSet, load_scenes
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.samples import Sample, Source
from defect_hub.dataset_scripts.source_sets.collection import FoundSets, find_sets, listed_samples, make_sample
from defect_hub.dataset_scripts.source_sets.listing import Entry, Listing


def collect(raw: Path, scenes: Sequence[str] | None = None, novel: Path | None = None) -> MmioData:
    """Find the sets of scenes in a raw folder and list their images.

    Args:
        raw: Folder that holds a folder for each set, or the folder of the only one.
        scenes: Names of scenes, of each of which a set must be there; None: all of which one is there.
        novel: File of novel categories; None: those of the table.

    Raises:
        DataError: `raw` does not exist; no set of a named scene is there, or none at all; the only set is not laid out
            as the table knows it (one of several becomes a problem of the collection); `novel` is unusable.
        ValueError: An unknown scene, or one of which no public set is known.
    """
    table = load_scenes()
    names = default_novel(table.categories) if novel is None else read_novel(novel, table.categories)
    chosen = SYSTEMATIC if novel is None else f"those of `{novel.name}`, given to the build"
    wanted = _sets_of(scenes)
    found = find_sets(raw, wanted, None, "MMIO", "put it into a folder of the set's name")
    _check_scenes(raw, scenes, found)
    problems = list(found.problems)
    sources = _Sources(frozenset(names))
    samples = [
        sample
        for listing in found.listings
        for sample in listed_samples(listing, partial(_sample, listing, sources), found.taken, problems)
    ]
    return MmioData(samples, problems, table.categories, names, chosen, found)


def _sets_of(scenes: Sequence[str] | None) -> Mapping[str, SceneSet]:
    """The sets of some scenes.

    Raises:
        ValueError: An unknown scene, or one of which no public set is known.
    """
    table = load_scenes()
    for name in scenes or ():
        if name not in table.scenes:
            raise ValueError(f"unknown scene {name!r}; there are {', '.join(table.scenes)}")
        if not table.scenes[name].sets:
            raise ValueError(f"no public set of the scene {name!r} is known: {table.scenes[name].note}")
    return {name: each for name, each in table.sets.items() if scenes is None or each.scene in scenes}


def _check_scenes(raw: Path, scenes: Sequence[str] | None, found: FoundSets) -> None:
    """Raise a `DataError` where a named scene has no set."""
    there = {load_scenes().sets[listing.source_set.name].scene for listing in found.listings}
    absent = [name for name in scenes or () if name not in there]
    if absent:
        sets = [name for scene in absent for name in load_scenes().scenes[scene].sets]
        problem = f"there is no set of {' or '.join(absent)}"
        raise DataError(raw, "scenes", problem, f"Supply one of {', '.join(sets)} in a folder of its name")


class _Sources:
    """What the images of a set share; one object for all of an origin."""

    def __init__(self, novel: frozenset[str]) -> None:
        self.novel = novel
        self._made: dict[tuple[str, str], Source] = {}

    def of(self, scene_set: SceneSet, raw_object: str) -> Source:
        """The source of the images of an object."""
        key = scene_set.name, raw_object
        if key not in self._made:
            self._made[key] = Source(
                name=scene_set.name,
                object_name=scene_set.noun_of(raw_object),
                super_category=scene_set.super_category,
                license=scene_set.license,
                redistributable=scene_set.redistributable,
                split_id=SPLIT_ID,
                text_source="composed",
                nouns=scene_set.nouns,
                scene=scene_set.scene,
                novel=self.novel,
                min_area=scene_set.min_area,
            )
        return self._made[key]


def _sample(listing: Listing, sources: _Sources, entry: Entry) -> Sample:
    scene_set = load_scenes().sets[listing.source_set.name]
    return make_sample(listing, entry, sources.of(scene_set, entry.values.get("object", "")))
