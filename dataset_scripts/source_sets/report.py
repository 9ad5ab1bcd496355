"""What was found of each set, for the terminal and the card."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from defect_hub.dataset_scripts.rows import Rows
from defect_hub.dataset_scripts.source_sets.collection import FoundSets
from defect_hub.dataset_scripts.source_sets.listing import Listing
from defect_hub.dataset_scripts.source_sets.table import SourceSet

LISTED = 3


def set_lines(found: FoundSets, rows: Rows, notes: Sequence[str] = ()) -> list[str]:
    """One line a set that is there, one that names the others, and the remarks."""
    counts = images_found(rows)
    lines = []
    for listing in found.listings:
        name, whole = listing.source_set.name, sum(listing.source_set.expected.values())
        of_whole = f" of {whole:,}" if whole else ""
        parts = [f"{counts[name].total():,}{of_whole} images", *_remarks(listing, found.unread.get(name, ()))]
        lines.append(f"{name}: {'; '.join(parts)}")
    if found.missing:
        lines.append(f"not found: {', '.join(source_set.name for source_set in found.missing)}")
    return [*lines, *other_remarks(found), *notes]


def other_remarks(found: FoundSets) -> list[str]:
    """What concerns no single set."""
    shared = found.unread.keys() - {listing.source_set.name for listing in found.listings}
    return [f"{name}: {_unread_files(found.unread[name])}" for name in sorted(shared)]


def images_found(rows: Rows) -> Mapping[str, Counter[str]]:
    """Images by set and label."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for source, label in zip(rows.sources, rows.labels, strict=True):
        found[source][label] += 1
    return found


def set_sections(found: FoundSets, rows: Rows) -> str:
    """A section of the card for each set that is there."""
    counts = images_found(rows)
    sections = [
        _section(listing, counts[listing.source_set.name], found.unread.get(listing.source_set.name, ()))
        for listing in found.listings
    ]
    return "\n\n".join(sections)


def missing_sets(found: FoundSets) -> str:
    """The sets that are not there, with the images they have."""
    sizes = {each.name: sum(each.expected.values()) for each in found.missing}
    return ", ".join(f"{name} ({size:,})" if size else name for name, size in sizes.items()) or "none"


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
    source_set = listing.source_set
    permission = "may be redistributed" if source_set.redistributable else "must not be redistributed"
    layouts = Counter(entry.layout.example for entry in listing.entries)
    lines = [
        f"### {source_set.name}: {source_set.title}",
        "",
        f"- Home: {_link(source_set.homepage)}",
        f"- Images here, of the whole set: {_counts(source_set, found)}.",
        f"- Annotation: {_clause(source_set.annotation)}; {_clause(source_set.mask_rule)}.",
        f"- Normal: {_clause(source_set.normal)}.",
        f"- Read as: {', '.join(f'`{example}` ({count:,})' for example, count in layouts.most_common())}.",
        *(f"- {remark[0].upper()}{remark[1:]}." for remark in _remarks(listing, unread)),
        f"- Licence: {source_set.license} ({_link(source_set.license_url)}); the images {permission}.",
        f"- What is known of the layout: {_clause(source_set.verified)}.",
        f"- Cite: {source_set.citation or 'nothing is known'}",
    ]
    return "\n".join(lines)


def _counts(source_set: SourceSet, found: Counter[str]) -> str:
    """Found against expected images, by label where both are known by label."""
    whole = sum(source_set.expected.values())
    expected = source_set.expected
    if "all" in expected or not expected:
        parts = [f"{name} {count:,}" for name, count in found.most_common()]
    else:
        named = found.most_common()
        parts = [
            f"{name} {count:,}" + (f" of {expected[name]:,}" if name in expected else "") for name, count in named
        ]
        absent = len(source_set.expected.keys() - found.keys())
        parts += [f"none of {absent} more categories"] if absent else []
    return f"{found.total():,} of {f'{whole:,}' if whole else 'an unknown number'} ({', '.join(parts)})"


def _clause(text: str) -> str:
    return text.strip().rstrip(".")


def _link(url: str | None) -> str:
    return f"<{url}>" if url else "not known"
