"""Statistics of the annotated objects of a built data set: categories, COCO sizes, shapes, objects an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from defect_hub.dataset_scripts.cards import markdown_table

TOLD = ("super_category", "scene", "novel")
"""Columns of the list that the statistics repeat."""
OBJECT_COLUMNS = ("objects.bbox", "objects.category", "objects.area")
SIZES = ("small", "medium", "large")
SIZE_BOUNDS = (32**2, 96**2)
"""Areas in pixels from which objects are medium and large, as COCO counts."""
DETECTOR_SIDE = 640
"""Pixels of the longer side of a detector's input (Zhang et al. 2025, implementation details)."""
BINS_PER_OCTAVE = 4
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
LONG = 3.0
"""An object this many times as long as wide is counted as elongated."""
HEAD = 10


@dataclass(frozen=True)
class Objects:
    """The objects of some rows, one after the other.

    Attributes:
        rows: (N,) number of the row of each.
        categories: (N,) category ids.
        sides: (N, 2) width and height of the boxes in pixels.
        areas: (N,) areas in pixels.
        counts: (R,) objects of each row.
    """

    rows: NDArray[np.int64]
    categories: NDArray[np.int64]
    sides: NDArray[np.float64]
    areas: NDArray[np.float64]
    counts: NDArray[np.int64]

    def row_areas(self) -> NDArray[np.float64]:
        """(R,) total area of the objects of each row."""
        return np.bincount(self.rows, self.areas, len(self.counts)).astype(np.float64)


def read_objects(table: pa.Table) -> Objects:
    """Flatten the objects of rows with `OBJECT_COLUMNS`."""
    bbox, category, area = (pc.struct_field(table["objects"], column.split(".")[1]) for column in OBJECT_COLUMNS)
    counts = pc.fill_null(pc.list_value_length(area), 0).to_numpy().astype(np.int64)
    boxes = pc.list_flatten(bbox, recursive=True).to_numpy().reshape(-1, 4)
    return Objects(
        np.repeat(np.arange(len(counts)), counts),
        pc.list_flatten(category).to_numpy().astype(np.int64),
        boxes[:, 2:].astype(np.float64),
        pc.list_flatten(area).to_numpy().astype(np.float64),
        counts,
    )


@dataclass
class BoxTally:
    """What accumulates while the rows pass: a few numbers an object."""

    counts: list[NDArray[np.int64]] = field(default_factory=list)
    scenes: list[str | None] = field(default_factory=list)
    image_sides: list[NDArray[np.float64]] = field(default_factory=list)
    categories: list[NDArray[np.int64]] = field(default_factory=list)
    sides: list[NDArray[np.float64]] = field(default_factory=list)
    areas: list[NDArray[np.float64]] = field(default_factory=list)

    def add(self, table: pa.Table, objects: Objects) -> None:
        """Add rows: their columns `width`, `height` and `scene`, and their objects."""
        self.counts.append(objects.counts)
        self.scenes += table["scene"].to_pylist()
        self.image_sides.append(np.stack([table[name].to_numpy() for name in ("width", "height")], 1).astype(float))
        self.categories.append(objects.categories)
        self.sides.append(objects.sides)
        self.areas.append(objects.areas)

    def statistics(self, names: Sequence[str], about: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """What there is to tell about the objects.

        Args:
            names: Categories by id.
            about: From `category_list.read_categories`.

        Returns:
            "number", "images" (that have objects), "per_image" (of these images), "categories" (most frequent first;
            a listed category without objects counts 0), "long_tail", "sizes" (objects by COCO size, at the image's
            own resolution and scaled to 640 px on its longer side), "scenes" where there are some, "aspect_ratio"
            (width / height), "area_share" (of the image) and "sides" (histogram of the square root of the area, in
            pixels). Empty without objects.
        """
        counts = np.concatenate([*self.counts, np.zeros(0, np.int64)])
        if not counts.sum():
            return {}
        images = np.repeat(np.concatenate(self.image_sides), counts, axis=0)
        sides, areas = np.concatenate(self.sides), np.concatenate(self.areas)
        scaled = areas * (DETECTOR_SIDE / images.max(1)) ** 2
        category_counts = _category_counts(np.concatenate(self.categories), names, about)
        ratios = sides[:, 0] / sides[:, 1]
        found: dict[str, Any] = {
            "number": len(areas),
            "images": int(np.count_nonzero(counts)),
            "per_image": _per_image(counts[counts > 0]),
            "categories": {
                name: {"count": count} | {key: about[name][key] for key in TOLD if name in about}
                for name, count in category_counts.items()
            },
            "long_tail": _long_tail(np.array([count for count in category_counts.values() if count])),
            "sizes": _sizes(areas, scaled),
            "aspect_ratio": _quantiles(ratios)
            | {"elongated": _rounded((np.maximum(ratios, 1 / ratios) >= LONG).mean())},
            "area_share": _quantiles(areas / images.prod(1)),
            "sides": _side_histogram(np.sqrt(areas), np.sqrt(scaled)),
        }
        scenes = np.array([scene or "" for scene in self.scenes])
        if named := sorted(set(scenes) - {""}):
            of_objects = np.repeat(scenes, counts)
            found["scenes"] = {
                scene: {"images": int(np.count_nonzero(counts[scenes == scene])), "number": int(inside.sum())}
                | _sizes(areas[inside], scaled[inside])
                for scene in named
                if (inside := of_objects == scene).any()
            }
        return found


def _category_counts(categories: NDArray[np.int64], names: Sequence[str], about: Mapping[str, Any]) -> dict[str, int]:
    """Objects of each category, most frequent first, ties in the order of the names."""
    counts = dict(zip(names, np.bincount(categories, minlength=len(names)).tolist(), strict=True))
    shown = {name: count for name, count in counts.items() if count or name in about}
    return dict(sorted(shown.items(), key=lambda item: -item[1]))


def _per_image(counts: NDArray[np.int64]) -> dict[str, Any]:
    values, images = np.unique(counts, return_counts=True)
    return {
        "mean": _rounded(counts.mean()),
        "median": _rounded(np.median(counts)),
        "max": int(counts.max()),
        "histogram": np.stack([values, images], 1).tolist(),
    }


def _long_tail(counts: NDArray[np.int64]) -> dict[str, Any]:
    """How unequal the categories are; `counts` (C,) > 0, descending."""
    # Gini coefficient: 0 for equal counts, near 1 where one category has nearly all.
    ranks = np.arange(len(counts), 0, -1)
    gini = (2 * (ranks * counts).sum() / counts.sum() - len(counts) - 1) / len(counts)
    return {
        "categories": len(counts),
        "head_share": _rounded(counts[:HEAD].sum() / counts.sum()),
        "imbalance": _rounded(counts[0] / counts[-1]),
        "gini": _rounded(gini),
    }


def _sizes(areas: NDArray[np.float64], scaled: NDArray[np.float64]) -> dict[str, dict[str, int]]:
    found = {}
    for key, values in (("own", areas), ("at_640", scaled)):
        kinds = np.searchsorted(SIZE_BOUNDS, values, side="right")
        found[key] = dict(zip(SIZES, np.bincount(kinds, minlength=len(SIZES)).tolist(), strict=True))
    return found


def _quantiles(values: NDArray[np.float64]) -> dict[str, float]:
    found = np.quantile(values, QUANTILES)
    return {f"{level:.0%}": _rounded(value) for level, value in zip(QUANTILES, found, strict=True)}


def _side_histogram(own: NDArray[np.float64], scaled: NDArray[np.float64]) -> dict[str, list[float]]:
    """Counts in bins of equal width on a logarithmic axis; sides below 1 px count as 1."""
    bins = [np.floor(BINS_PER_OCTAVE * np.log2(np.maximum(sides, 1))).astype(int) for sides in (own, scaled)]
    first, last = min(map(np.min, bins)), max(map(np.max, bins))
    counts = [np.bincount(each - first, minlength=last - first + 1).tolist() for each in bins]
    edges = [_rounded(2 ** (exponent / BINS_PER_OCTAVE)) for exponent in range(first, last + 2)]
    return {"edges": edges, "own": counts[0], "at_640": counts[1]}


def _rounded(value: Any) -> float:
    return round(float(value), 6)


def box_sizes_text(objects: Mapping[str, Any]) -> str:
    """Paragraph and table of the card below the figure of the sizes."""
    images, shares, ratios = objects["per_image"], objects["area_share"], objects["aspect_ratio"]
    text = (
        f"{objects['number']:,} objects on {objects['images']:,} images: {images['mean']:.1f} an image on average, "
        f"{images['max']:,} at most. The figure shows the square root of their areas, with the sizes of COCO: small "
        f"below 32² px, large from 96² px on, at the images' own resolution and scaled to {DETECTOR_SIDE} px on the "
        f"longer side. An object covers {shares['50%']:.2%} of its image in the median; {ratios['elongated']:.0%} of "
        f"the boxes are at least {LONG:.0f} times as long as wide."
    )
    groups = {**objects.get("scenes", {}), "all": {**objects["sizes"], **objects}}
    rows = [
        [name, f"{found['images']:,}", f"{found['number']:,}", *(_shares(found[key]) for key in ("own", "at_640"))]
        for name, found in groups.items()
    ]
    of = "scene" if "scenes" in objects else ""
    head = [of, "images", "objects", "small / medium / large", f"at {DETECTOR_SIDE} px"]
    return f"{text}\n\n{markdown_table(head, rows)}"


def long_tail_text(objects: Mapping[str, Any]) -> str:
    """Paragraph of the card below the figure of the categories."""
    tail, categories = objects["long_tail"], objects["categories"].values()
    text = (
        f"Of {tail['categories']} categories with objects, the most frequent has {tail['imbalance']:,.4g} times the "
        f"objects of the rarest (Gini coefficient {tail['gini']:.2f})."
    )
    if tail["categories"] > HEAD:
        text += f" The {HEAD} most frequent ones have {tail['head_share']:.0%} of all objects."
    if absent := sum(not found["count"] for found in categories):
        text += f" {absent} listed categories have none here."
    if novel := [found["count"] for found in categories if found.get("novel")]:
        text += f" {len(novel)} categories are novel, with {sum(novel):,} objects: zero-shot training omits them."
    return text


def _shares(sizes: Mapping[str, int]) -> str:
    total = sum(sizes.values())
    return " / ".join(f"{sizes[size] / total:.0%}" for size in SIZES)
