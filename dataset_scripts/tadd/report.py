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
    return [*lines, *_other_remarks(collection)]


def _other_remarks(collection: Collection) -> list[str]:
    """What concerns no single subset."""
    shared = collection.unread.keys() - {listing.subset.name for listing in collection.listings}
    return [*(f"{name}: {_unread_files(collection.unread[name])}" for name in sorted(shared)), *collection.notes]


def card_sections(collection: Collection, rows: Rows) -> dict[str, str]:
    """Text of the card's placeholders for the subsets."""
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
        "remarks": "\n".join(f"- {remark}." for remark in _other_remarks(collection)),
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
        remarks.append(f"{', '.join(listing.unread)} holds images of it too and was not read")
    if listing.absent_tables:
        remarks.append(f"without {', '.join(listing.absent_tables)}, so its own split is not known")
    return [*remarks, _unread_files(unread)] if unread else remarks


def _unread_files(paths: Sequence[str]) -> str:
    more = ", ..." if len(paths) > LISTED else ""
    return f"{len(paths):,} image files not read ({', '.join(paths[:LISTED])}{more})"


def _section(listing: Listing, found: Counter[str], unread: Sequence[str]) -> str:
    subset = listing.subset
    permission = "may be redistributed" if subset.redistributable else "must not be redistributed"
    layouts = Counter(entry.layout.example for entry in listing.entries)
    lines = [
        f"### {subset.name}: {subset.title}",
        "",
        f"- Home: {_link(subset.homepage)}",
        f"- Images here, of the whole set: {_counts(subset, found)}.",
        f"- Annotation: {_clause(subset.annotation)}; {_clause(subset.mask_rule)}.",
        f"- Normal: {_clause(subset.normal)}.",
        f"- Read as: {', '.join(f'`{example}` ({count:,})' for example, count in layouts.most_common())}.",
        *(f"- {remark[0].upper()}{remark[1:]}." for remark in _remarks(listing, unread)),
        f"- Licence: {subset.license} ({_link(subset.license_url)}); the images {permission}.",
        f"- What is known of the layout: {_clause(subset.verified)}.",
        f"- Cite: {subset.citation or 'the paper of TADD; nothing else is known'}",
    ]
    return "\n".join(lines)


def _counts(subset: Subset, found: Counter[str]) -> str:
    """Found against expected images, by label where both are known by label."""
    whole = sum(subset.expected.values())
    if "all" in subset.expected:
        parts = [f"{name} {count:,}" for name, count in found.most_common()]
    else:
        parts = [f"{name} {count:,} of {subset.expected.get(name, 0):,}" for name, count in found.most_common()]
        absent = len(subset.expected.keys() - found.keys())
        parts += [f"none of {absent} more categories"] if absent else []
    return f"{found.total():,} of {whole:,} ({', '.join(parts)})"


def _clause(text: str) -> str:
    return text.strip().rstrip(".")


def _link(url: str | None) -> str:
    return f"<{url}>" if url else "not known"
