"""What was found of each subset, for the card."""

from __future__ import annotations

from defect_hub.dataset_scripts.cards import markdown_table
from defect_hub.dataset_scripts.rows import Rows
from defect_hub.dataset_scripts.source_sets.report import images_found, missing_sets, other_remarks, set_sections
from defect_hub.dataset_scripts.tadd.collection import Collection
from defect_hub.dataset_scripts.tadd.subsets import load_subsets


def card_sections(collection: Collection, rows: Rows) -> dict[str, str]:
    """Text of the card's placeholders for the subsets."""
    found, counts = collection.found, images_found(rows)
    subsets = [load_subsets()[listing.source_set.name] for listing in found.listings]
    table = [
        [
            subset.name,
            f"{counts[subset.name].total():,}",
            f"{sum(subset.expected.values()):,}",
            f"{subset.paper_images:,}",
            "yes" if subset.redistributable else "no",
        ]
        for subset in subsets
    ]
    head = ["subset", "images here", "of the whole set", "in the paper", "may be redistributed"]
    return {
        "subset_count": str(len(subsets)),
        "subset_table": markdown_table(head, table),
        "subsets": set_sections(found, rows),
        "missing_subsets": missing_sets(found),
        "remarks": "\n".join(f"- {remark}." for remark in [*other_remarks(found), *collection.notes]),
    }
