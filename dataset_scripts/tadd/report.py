"""What was found of each subset, for the terminal and the card."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from defect_hub.dataset_scripts.cards import markdown_table
from defect_hub.dataset_scripts.rows import Rows
from defect_hub.dataset_scripts.tadd.collection import Collection
from defect_hub.dataset_scripts.tadd.listing import Listing
from defect_hub.dataset_scripts.tadd.subsets import Subset

LISTED = 3


def subset_lines(collection: Collection, rows: Rows) -> list[str]:
    """One line a subset that is there, and one that names the others."""
    found = _found(rows)
    lines = []
    for listing in collection.listings:
        name, whole = listing.subset.name, sum(listing.subset.expected.values())
        parts = [f"{found[name].total():,} of {whole:,} images", *_remarks(listing, collection.unread.get(name, ()))]
        lines.append(f"{name}: {'; '.join(parts)}")
    if collection.missing:
        lines.append(f"not found: {', '.join(subset.name for subset in collection.missing)}")
    return [*lines, *collection.notes]


def card_sections(collection: Collection, rows: Rows) -> dict[str, str]:
    """Text of the card's placeholders `$subset_table`, `$subsets` and `$missing_subsets`."""
    found = _found(rows)
    table = [
        [
            listing.subset.name,
            f"{found[listing.subset.name].total():,}",
            f"{sum(listing.subset.expected.values()):,}",
            f"{listing.subset.paper_images:,}",
            "yes" if listing.subset.redistributable else "no",
        ]
        for listing in collection.listings
    ]
    head = ["subset", "images here", "of the whole set", "in the paper", "may be redistributed"]
    sections = [
        _section(listing, found[listing.subset.name], collection.unread.get(listing.subset.name, ()))
        for listing in collection.listings
    ]
    missing = ", ".join(f"{subset.name} ({sum(subset.expected.values()):,})" for subset in collection.missing)
    return {
        "subset_count": str(len(collection.listings)),
        "subset_table": markdown_table(head, table),
        "subsets": "\n\n".join(sections),
        "missing_subsets": missing or "none",
    }


def _found(rows: Rows) -> Mapping[str, Counter[str]]:
    """Images by subset and label."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for source, label in zip(rows.sources, rows.labels, strict=True):
        found[source][label] += 1
    return found


def _remarks(listing: Listing, unread: Sequence[str]) -> list[str]:
    remarks = []
    if listing.unread:
        remarks.append(f"{', '.join(listing.unread)} is the same set and was not read")
    if unread:
        more = ", ..." if len(unread) > LISTED else ""
        remarks.append(f"{len(unread):,} image files not read ({', '.join(unread[:LISTED])}{more})")
    return remarks


def _section(listing: Listing, found: Counter[str], unread: Sequence[str]) -> str:
    subset = listing.subset
    permission = "may be redistributed" if subset.redistributable else "must not be redistributed"
    layouts = Counter(entry.layout.example for entry in listing.entries)
    lines = [
        f"### {subset.name}: {subset.title}",
        "",
        f"- Home: {_link(subset.homepage)}",
        f"- Images here, of the whole set: {_counts(subset, found)}.",
        f"- Annotation: {subset.annotation}; {subset.mask_rule}.",
        f"- Normal: {subset.normal}.",
        f"- Read as: {', '.join(f'`{example}` ({count:,})' for example, count in layouts.most_common())}.",
        *(f"- {remark[0].upper()}{remark[1:]}." for remark in _remarks(listing, unread)),
        f"- Licence: {subset.license} ({_link(subset.license_url)}); the images {permission}.",
        f"- What is known of the layout: {subset.verified}.",
        f"- Cite: {subset.citation or 'the paper of TADD; nothing else is known'}",
    ]
    return "\n".join(lines)


def _counts(subset: Subset, found: Counter[str]) -> str:
    """Found against expected images, by label where both are known by label."""
    whole = sum(subset.expected.values())
    names = list(dict.fromkeys([*found, *subset.expected]))
    if "all" in subset.expected:
        parts = ", ".join(f"{name} {count:,}" for name, count in found.most_common())
    else:
        parts = ", ".join(f"{name} {found[name]:,} of {subset.expected.get(name, 0):,}" for name in names)
    return f"{found.total():,} of {whole:,} ({parts})"


def _link(url: str | None) -> str:
    return f"<{url}>" if url else "not known"
