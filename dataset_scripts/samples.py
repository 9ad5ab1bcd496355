"""What a reader knows of an image before its files are opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defect_hub.dataset_scripts.readers.boxes import Box, BoxList

RegionReader = Callable[[tuple[int, int]], Mapping[str, NDArray[np.bool_]]]
"""Reads an annotation: from (width, height) of the image to the defect pixels (H, W) of each category that has some.

It must pickle, as a `functools.partial` of a module's function does.
"""
BoxReader = Callable[[tuple[int, int]], BoxList]
"""Reads boxes, from (width, height) of the image; it must pickle too."""


@dataclass(frozen=True)
class Source:
    """What all images of one origin share; see the schema for the meaning of each.

    Attributes:
        nouns: Countable noun of a class, for texts; only where its name is none ("uneven": "uneven area").
        scene: Kind of product or process; None: not told apart.
        novel: Categories that zero-shot detection does not train on; None: no such study.
        min_area: Smallest part of a mask, in pixels, that is an object; the largest part always is one.
    """

    name: str
    object_name: str
    super_category: str
    license: str
    redistributable: bool
    split_id: str
    text_source: str
    nouns: Mapping[str, str] = field(default_factory=dict)
    scene: str | None = None
    novel: frozenset[str] | None = None
    min_area: int = 1


@dataclass(frozen=True)
class Sample:
    """One image as a reader found it.

    Attributes:
        image_id: Unique within the data set.
        image: Image file.
        mask: Mask file; None where the image has no pixel annotation of this form.
        class_name: Name from the label space; None: the category that covers most of the annotation.
        source: Where it comes from.
        is_defective: None: unknown, or for the annotation to tell.
        texts: Given texts by level; levels left out are composed from the annotation.
        attributes: Given structured attributes, in the keys of the release; None: measured on the annotation.
        class_description: Name, visual attributes and cause of the class.
        boxes: Boxes in pixels of the file as it gives them, with categories of the label space, or what reads them;
            None where there is no such annotation.
        regions: Reads a pixel annotation of any other form than a mask file; not together with `size`.
        empty_class: Class of an image whose annotation marks nothing and which is thereby normal; None: nobody
            annotated it.
        size: (width, height) to resize image and annotation to; None keeps the file's bytes.
        source_file: Path within the source set.
        official_split: The source's own split; None where it has none.
        group: Images of one photo or part share it and go to one split; empty: alone.
    """

    image_id: str
    image: Path
    mask: Path | None
    class_name: str | None
    source: Source
    is_defective: bool | None
    texts: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, Any] | None = None
    class_description: Mapping[str, str | None] | None = None
    boxes: Sequence[Box] | BoxReader | None = None
    regions: RegionReader | None = None
    empty_class: str | None = None
    size: tuple[int, int] | None = None
    source_file: str = ""
    official_split: str | None = None
    group: str = ""
