"""A built data set as it is published: nothing that must not leave, a card for the Hub, figures, audit report."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from defect_hub import __version__
from defect_hub.dataset_scripts.audit import audit
from defect_hub.dataset_scripts.cards import COPY, LICENCES, markdown_table, renamed, with_block
from defect_hub.dataset_scripts.output import BUILD_MARK, check_replaceable, explain_full_disk
from defect_hub.dataset_scripts.parquet import MAX_SHARD_BYTES, ROW_GROUP
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.release import PLAIN_STATISTICS, Rights, count_rights, write_release
from defect_hub.dataset_scripts.rewrite import Card, check_apart, counts_line, is_of, read_card
from defect_hub.dataset_scripts.statistics import write_statistics
from defect_hub.dataset_scripts.validate import validate_build
from defect_hub.publishing.staged import MANIFEST, Staged

LISTS = (
    *("box_repairs.csv", "categories.csv", "disagreements.csv", "duplicates.csv"),
    *("references.csv", "splits.csv", "zero_shot.csv"),
)
"""The lists that builders write beside the shards."""
AUDIT, CARD = "audit.json", "README.md"
MADE_ANEW = (AUDIT, CARD, MANIFEST, *(f"statistics/{name}" for name in (*PLAIN_STATISTICS, "samples.jpg")))
"""What an earlier run may have left in the folder; published are those that belong to what is published."""
REBUILD = "Build the data set again"
LISTED = 5


def stage_dataset(folder: Path, repo_id: str, staging: Path, keep: Collection[str] = (), workers: int = 1) -> Staged:
    """Check a built data set and make what differs from it where it is published.

    Images that must not be redistributed stay behind, see `release.write_release`; where there are none, the folder's
    own shards are published. Figures and audit report are made from what is published. The result depends on the
    build, `repo_id` and `keep` alone.

    Args:
        folder: Built data set; it is not changed.
        repo_id: "organisation/name".
        staging: Folder for new files, made if missing. A complete result of the same folder and arguments is used
            again.
        keep: Sources whose images are published although marked as not redistributable: you hold the rights.
        workers: Processes; the result does not depend on it.

    Returns:
        The files of the repository. The notes say how many images stay behind, and which files.

    Raises:
        DataError: `folder` is not a built data set, has problems or shards that do not suit the Hub, or has no rows of
            a source to keep; nothing is staged.
    """
    card = read_card(folder)
    check_apart(folder, staging)
    shards = _shards(folder, card)
    rights = count_rights(folder, keep)
    lists, left_out = _other_files(folder, shards)
    out = staging / _name(repo_id)
    withheld = any(part.withheld for part in rights)
    state = _state([folder / CARD, *shards, *lists], folder, repo_id, keep)
    mark = staging / f"{_name(repo_id)}.json"
    if not (out.is_dir() and mark.is_file() and mark.read_text("utf-8") == state):
        _check_content(folder, workers)
        mark.unlink(missing_ok=True)
        with explain_full_disk(staging):
            _write(folder, out, repo_id, keep, rights, withheld, workers)
            mark.write_text(state, "utf-8")  # Last: it says that all is there.
    base = out if withheld else folder
    files = [(base, path.relative_to(folder)) for path in (*shards, *lists)]
    files += [(out, path.relative_to(out)) for path in (out / CARD, out / AUDIT, *(out / "statistics").iterdir())]
    return Staged(
        "dataset",
        {inner.as_posix(): root / inner for root, inner in sorted(files, key=lambda file: file[1])},
        f"{_name(repo_id)}: build {read_card(out).front[BUILD_MARK][:16]}",
        ("data/*", "statistics/*", AUDIT, *LISTS),
        tuple(_notes(rights, left_out)),
    )


def _name(repo_id: str) -> str:
    return repo_id.rpartition("/")[2]


def _state(files: Iterable[Path], folder: Path, repo_id: str, keep: Collection[str]) -> str:
    """What a staged result was made from and by, as text: any change of a file shows in its size or time."""
    found = [(path, path.stat()) for path in files]
    stats = [[path.relative_to(folder).as_posix(), stat.st_size, stat.st_mtime_ns] for path, stat in found]
    about = {"version": __version__, "repo_id": repo_id, "keep": sorted(set(keep)), "files": stats}
    return json.dumps(about, indent=1) + "\n"


def _shards(folder: Path, card: Card) -> list[Path]:
    """The Parquet files that the card's configs read; there must be no others and nothing wrong with them."""
    shards = sorted(folder.glob("data/*/*.parquet"))
    entries = [entry for config, _ in card.configs.values() for entry in config["data_files"]]
    for entry in entries:
        if not any(is_of(shard, entry, folder) for shard in shards):
            raise DataError(folder / CARD, "data_files", f"there is no file {entry['path']}", REBUILD)
    for shard in shards:
        if not any(is_of(shard, entry, folder) for entry in entries):
            raise DataError(shard, "file", "belongs to no config of the card", f"Remove it or {REBUILD.lower()}")
        _check_no_link(folder, shard)
        _check_shard(shard)
    return shards


def _check_no_link(folder: Path, path: Path) -> None:
    """Raise a `DataError` for a file that lies elsewhere: what a link points to may not be meant to leave."""
    if path.resolve() != folder.resolve() / path.relative_to(folder):
        raise DataError(path, "file", "is a link", "Put the file itself into the folder")


def _check_shard(shard: Path) -> None:
    """Raise a `DataError` for a file that the Hub's viewer and streaming readers would choke on."""
    try:
        metadata = pq.read_metadata(shard)
    except (pa.ArrowException, OSError) as error:
        raise DataError(shard, "file", f"is not readable as Parquet ({error})", REBUILD) from error
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    indexed = (group.column(column).has_offset_index for group in groups for column in range(group.num_columns))
    if (size := shard.stat().st_size) > MAX_SHARD_BYTES:
        raise DataError(shard, "size", f"{size:,} bytes are more than {MAX_SHARD_BYTES:,}", REBUILD)
    if (rows := max((group.num_rows for group in groups), default=0)) > ROW_GROUP:
        raise DataError(shard, "row groups", f"one has {rows:,} rows, more than {ROW_GROUP}", REBUILD)
    if not all(indexed):
        raise DataError(shard, "page index", "is missing", REBUILD)


def _other_files(folder: Path, shards: Collection[Path]) -> tuple[list[Path], list[str]]:
    """The lists of the build, and the names of what is no part of it: a hidden folder as one."""
    lists, left_out = [], []
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder)
        if inner.as_posix() in MADE_ANEW or path in shards or (path.is_dir() and not path.is_symlink()):
            continue
        hidden = next((number for number, part in enumerate(inner.parts) if part.startswith(".")), None)
        if inner.as_posix() in LISTS:
            _check_no_link(folder, path)
            lists.append(path)
        else:
            left_out.append(Path(*inner.parts[: None if hidden is None else hidden + 1]).as_posix())
    return lists, list(dict.fromkeys(left_out))


def _check_content(folder: Path, workers: int) -> None:
    """Read every image once; raise a `DataError` with the first problem and the number of others."""
    try:
        problems = validate_build(folder, workers).problems
    except (pa.ArrowException, OSError) as error:
        raise DataError(folder, "data", f"cannot be read ({error})", REBUILD) from error
    if problems:
        raise _first(problems)


def _first(problems: Sequence[DataError]) -> DataError:
    first, *others = problems
    more = f" (and {len(others)} more problems)" if others else ""
    return DataError(first.where, first.field, first.problem, first.remedy + more)


def _write(
    folder: Path,
    out: Path,
    repo_id: str,
    keep: Collection[str],
    rights: Sequence[Rights],
    withheld: bool,
    workers: int,
) -> None:
    """Make card, figures and audit report in `out`, and the shards and lists where images stay behind."""
    earlier = out.with_name(f".{out.name}.old")
    shutil.rmtree(earlier, ignore_errors=True)
    if out.exists():
        check_replaceable(out)
        out.rename(earlier)  # At once: what an interrupted removal leaves there would not be known as ours.
        shutil.rmtree(earlier)
    if withheld:
        write_release(folder, out, keep)
    else:
        out.mkdir(parents=True)
        shutil.copyfile(folder / CARD, out / CARD)
    base = out if withheld else folder
    report = audit({_name(repo_id): base}, workers)
    if report.problems:
        raise _first(report.problems)
    report.write(out / AUDIT)
    front, _, body = (out / CARD).read_text("utf-8").partition("\n---\n")
    body = with_block(renamed(body, repo_id), COPY, _copy_text(repo_id))
    body = with_block(body, LICENCES, _licences_text(rights))
    (out / CARD).write_text(f"{front}\n---\n{body}", "utf-8")
    write_statistics(base, out)


def _copy_text(repo_id: str) -> str:
    name = _name(repo_id)
    return f"""`defect-hub` works on a local copy; [{MANIFEST}]({MANIFEST}) tells whether that is whole:

```bash
hf download {repo_id} --repo-type dataset --local-dir {name}
(cd {name} && sha256sum --check {MANIFEST})
```

[{AUDIT}]({AUDIT}) lists all equal and nearly equal images in it.
"""


def _licences_text(rights: Sequence[Rights]) -> str:
    rows = [[part.source, part.license or "not stated", f"{part.rows:,}", f"{part.published:,}"] for part in rights]
    text = markdown_table(["source", "licence of the images", "rows", "images published"], rows) + "\n"
    if kept := sorted({part.source for part in rights if part.kept}):
        names = ", ".join(kept)
        text += f"\nWho published this data set states to hold the rights in the images of {names}; nobody else may "
        text += "pass them on: `redistributable` is false.\n"
    return text


def _notes(rights: Sequence[Rights], left_out: Sequence[str]) -> Iterator[str]:
    counts: dict[str, Counter[str]] = {"withheld": Counter(), "kept": Counter()}
    for part in rights:
        counts["withheld"][part.source] += part.withheld
        counts["kept"][part.source] += part.kept
    withheld, kept = (+count for count in counts.values())
    if withheld:
        what = f"images of {withheld.total():,} rows ({counts_line(withheld)})"
        yield f"withheld: {what}; give --i-hold-the-rights SOURCE to publish them"
    if kept:
        yield f"published because you hold the rights: images of {kept.total():,} rows ({counts_line(kept)})"
    if left_out:
        more = f" and {len(left_out) - LISTED} more" if len(left_out) > LISTED else ""
        yield f"left out, no files of a build: {', '.join(left_out[:LISTED])}{more}"
