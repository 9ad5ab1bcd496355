"""The table of MMIO's scenes agrees with itself, with the paper's numbers, and with the files that go with it."""

import re

import pytest

from defect_hub.dataset_scripts.mmio.categories import choose_novel, default_novel
from defect_hub.dataset_scripts.mmio.plan import VIEWS_OF_BOXES, scene_config
from defect_hub.dataset_scripts.mmio.scenes import SceneSet, load_scenes
from defect_hub.dataset_scripts.schema import VIEWS
from defect_hub.dataset_scripts.source_sets.listing import annotation_files
from defect_hub.dataset_scripts.texts import countable_noun
from defect_hub.modeling.template_sentences import plural

TABLE = load_scenes()
# Zhang et al. 2025, section "Multi-Modal Industrial-Open Dataset".
PAPER_SUPER_CATEGORIES = {
    *("metallurgy", "automobile manufacturing", "precision electronics"),
    *("textiles", "daily necessities", "wood processing"),
}
GLASS_CONTAINER = ["glass oil stain", "glass black spot", "glass bubble", "plastering thread", "quenched grain"]
OTHER_CONFIGS = {"closed", "zero_shot", "zero_shot_detection", "image_level", "official"}


def test_numbers_are_those_of_the_paper() -> None:
    names = [category.name for category in TABLE.categories]
    assert len(TABLE.scenes) == 18
    assert len(names) == len(set(names)) == 100
    assert {scene.super_category for scene in TABLE.scenes.values()} == PAPER_SUPER_CATEGORIES
    assert names == [name for scene in TABLE.scenes.values() for name in scene.categories]
    assert TABLE.scenes["glass container"].categories == GLASS_CONTAINER
    assert len(default_novel(TABLE.categories)) == 35


def test_every_category_of_a_set_is_of_its_scene() -> None:
    for each in TABLE.sets.values():
        assert {*each.labels} - {"normal"} <= {*TABLE.scenes[each.scene].categories}, each.name
    for scene in TABLE.scenes.values():
        for name in scene.sets:
            assert (TABLE.sets[name].scene, TABLE.sets[name].super_category) == (scene.name, scene.super_category)
        shown = {label for name in scene.sets for label in TABLE.sets[name].labels}
        assert not scene.sets or shown - {"normal"} == set(scene.categories)
        assert scene.sets or scene.note.startswith("Open: ")
    assert sorted(TABLE.sets) == sorted(name for scene in TABLE.scenes.values() for name in scene.sets)


def test_novel_categories_are_those_that_the_numbers_give() -> None:
    boxes = {name: count for scene in TABLE.scenes.values() for name, count in scene.boxes.items()}
    nowhere = {name: 0 for scene in TABLE.scenes.values() if not scene.sets for name in scene.categories}
    novel = default_novel(TABLE.categories)
    assert novel == choose_novel(TABLE.categories, boxes | nowhere)
    assert not {name for name, count in (boxes | nowhere).items() if count == 0} & set(novel)
    frequent = sorted((name for name in boxes if boxes[name]), key=boxes.__getitem__)
    halves = frequent[: len(frequent) // 2], frequent[len(frequent) // 2 :]
    rare, common = (sum(name in novel for name in half) for half in halves)
    assert abs(rare - common) <= 3


def test_names_of_configs_are_unique() -> None:
    names = [scene_config(name) for name in TABLE.scenes]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z][a-z_]*[a-z]", name) for name in names)
    assert not set(names) & {*VIEWS, *VIEWS_OF_BOXES, *OTHER_CONFIGS}


def test_prompts_are_noun_phrases_of_their_own() -> None:
    prompts = [category.prompt or "" for category in TABLE.categories]
    assert len(set(prompts)) == 100
    for prompt in prompts:
        assert re.fullmatch(r"[a-z][a-zA-Z -]{8,}[a-z]", prompt), prompt
        assert prompt.split()[0] not in ("a", "an", "the", "some"), prompt


def test_nouns_can_be_counted() -> None:
    for scene_set in TABLE.sets.values():
        assert set(scene_set.nouns) <= set(TABLE.scenes[scene_set.scene].categories)
    nouns = {noun for scene_set in TABLE.sets.values() for noun in scene_set.nouns.values()}
    for noun in nouns | {countable_noun(category.name) for category in TABLE.categories}:
        assert plural(noun) != noun


@pytest.mark.parametrize("scene_set", TABLE.sets.values(), ids=lambda scene_set: scene_set.name)
def test_sets_say_all_that_a_card_needs(scene_set: SceneSet) -> None:
    about = (scene_set.title, scene_set.license, scene_set.homepage, scene_set.citation, scene_set.annotation)
    assert all(about) and all((scene_set.mask_rule, scene_set.normal, scene_set.verified, scene_set.object_name))
    assert scene_set.homepage.startswith("http")
    assert scene_set.license_url is None or scene_set.license_url.startswith("http")
    assert not scene_set.redistributable or scene_set.license_url is not None
    assert set(scene_set.expected) <= {*scene_set.labels, "unknown", "all"}
    masks = any(layout.regions and "mask" in layout.regions["kind"] for layout in scene_set.layouts)
    assert (scene_set.min_area > 1) is masks


@pytest.mark.parametrize("scene_set", TABLE.sets.values(), ids=lambda scene_set: scene_set.name)
def test_examples_of_layouts_lie_as_they_say(scene_set: SceneSet) -> None:
    assert scene_set.layouts
    for layout in scene_set.layouts:
        image, _, annotation = re.split(r" \(|, ", layout.example)[0].partition(" with ")
        match = layout.images.fullmatch(image)
        assert match is not None, layout.example
        named = [template.format_map(match.groupdict()) for template in annotation_files(layout)]
        assert not annotation or annotation in named, layout.example
        # The first layout that fits is taken.
        first = next(
            each for each in scene_set.layouts if each.folders == layout.folders and each.images.fullmatch(image)
        )
        assert first is layout or first.regions == layout.regions, layout.example
