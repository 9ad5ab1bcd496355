"""What both ways into MMIO give: samples, their categories, and what zero-shot detection leaves out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from defect_hub.dataset_scripts.mmio.categories import Category
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.samples import Sample
from defect_hub.dataset_scripts.source_sets.collection import FoundSets

SEED = 42
TEST_SHARE = 0.2
SYSTEMATIC = "a systematic sample over scenes and frequencies"
SPLIT_ID = f"mmio-closed-80-20-seed{SEED}"


@dataclass(frozen=True)
class MmioData:
    """What a raw folder gives.

    Attributes:
        samples: In the order of sets and paths.
        problems: Everything that is wrong with files and categories.
        categories: In label order.
        novel: Names of those that zero-shot detection does not train on.
        novel_origin: How they were chosen, for the card.
        found: The public sets that are there; None for a release.
        official: Whether the source's own splits are those of the whole data set.
        notes: What else is remarkable.
    """

    samples: Sequence[Sample]
    problems: Sequence[DataError]
    categories: Sequence[Category]
    novel: Sequence[str]
    novel_origin: str
    found: FoundSets | None = None
    official: bool = False
    notes: Sequence[str] = ()

    @property
    def alike(self) -> frozenset[str]:
        """Sets of parts in one pose."""
        listings = self.found.listings if self.found else ()
        return frozenset(listing.source_set.name for listing in listings if listing.source_set.alike)
