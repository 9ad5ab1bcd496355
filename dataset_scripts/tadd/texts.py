"""Given descriptions: the authors' `TADD_text.json` and the hand-over file of a description pipeline."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.readers.jsonfile import read_json

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"}
SHA256 = re.compile("[0-9a-f]{64}")
NAME_ONLY = 0
"""Strength of a match by file name alone; that of a match by path is the number of its components."""


def read_texts(path: Path) -> dict[str, str]:
    """Descriptions of the authors' text file.

    Args:
        path: JSON list of {"image_name": ..., "conversation": [{"from": "human", "value": ...}, {"from": "gpt",
            "value": ...}, ...]}; of the turns only the first "gpt" one is kept.

    Returns:
        Description by image name, a lower-case path with "/"; ".jpg" is appended to a name without suffix. Empty for
        a name that occurs with several texts ("000.jpg" of several sets): nobody can tell whose each is.

    Raises:
        DataError: The file is unusable, or an entry has no name or text.
    """
    texts: dict[str, str] = {}
    for number, entry in enumerate(read_json(path, list), start=1):
        where = f"entry {number}"
        name = entry.get("image_name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name.strip(" ./\\"):
            raise DataError(path, where, "has no image_name", "Correct the file or fetch it again")
        key = _key(name)
        text = _first_answer(entry.get("conversation"))
        if not text:
            problem = f"{name} has no answer in its conversation"
            raise DataError(path, where, problem, 'Give it a turn {"from": "gpt", "value": <description>}')
        if texts.setdefault(key, text) != text:
            texts[key] = ""
    return texts


def read_descriptions(path: Path) -> dict[str, str]:
    """Descriptions by the hash of the image file.

    Args:
        path: JSON Lines of {"sha256": 64 hexadecimal digits, "description": text}; blank lines are skipped.

    Returns:
        Description by lower-case SHA-256.

    Raises:
        DataError: The file cannot be read, or a line is malformed, has no hash or text, or another text than an
            earlier one of the same hash.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(path, "descriptions", f"cannot be read ({error})", "Supply a UTF-8 file") from error
    texts: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"line {number}"
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise DataError(path, where, f"is no JSON ({error})", "Write one JSON object a line") from error
        digest, text = (entry.get(key) if isinstance(entry, dict) else None for key in ("sha256", "description"))
        if not isinstance(digest, str) or not SHA256.fullmatch(digest.lower()):
            problem = "has no sha256 of 64 hexadecimal digits"
            raise DataError(path, where, problem, "Give the SHA-256 of the image file")
        if not isinstance(text, str) or not text.strip():
            raise DataError(path, where, "has no description", "Give one or leave the line out")
        if texts.setdefault(digest.lower(), _plain(text)) != _plain(text):
            problem = f"{digest.lower()} has another text in an earlier line"
            raise DataError(path, where, problem, "Keep one of the two")
    return texts


def find_texts(texts: Mapping[str, str], images: Sequence[tuple[str, str]]) -> list[str | None]:
    """Find the description of each image of a build, by the longest suffix of its path.

    An entry fits an image if its whole path is the end of "<source>/<source_file>" or the other way round. By its
    file name alone it fits where it is the only entry and the image the only one of that name, and its folders, if it
    has any, name the source. File suffixes and case do not count, nor do "-", "_" and spaces in folders.

    Args:
        texts: As from `read_texts`.
        images: (source, path within the source) of all images of the build: a text that fits two of them equally
            well belongs to none.

    Returns:
        Description of each image; None where no entry or more than one fits best.
    """
    by_stem: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    answers: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for key, text in texts.items():
        parts = _parts(key)
        if parts not in answers:
            by_stem[parts[-1]].append(parts)
        answers[parts].add(text)
    paths = [_parts(_key(f"{source}/{source_file}")) for source, source_file in images]
    best = [
        _best_entry(path, source, by_stem[path[-1]]) if path[-1] in by_stem else None
        for path, (source, _) in zip(paths, images, strict=True)
    ]
    claims: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for entry, strength in filter(None, best):
        claims[entry].append(strength)
    return [None if match is None else _claimed_text(match, claims[match[0]], answers[match[0]]) for match in best]


def _claimed_text(match: tuple[tuple[str, ...], int], strengths: Sequence[int], answers: set[str]) -> str | None:
    """The text of an entry for the one image that fits it best; `strengths` are those of all that claim the entry."""
    strongest = max(strengths)
    # An entry with two answers is one name with two suffixes and two texts.
    if match[1] < strongest or strengths.count(strongest) > 1 or len(answers) > 1:
        return None
    return next(iter(answers)) or None


def _best_entry(
    path: tuple[str, ...], source: str, entries: Sequence[tuple[str, ...]]
) -> tuple[tuple[str, ...], int] | None:
    """The entry that fits a path best, with the strength of the match; None where none does or several do."""
    whole = {}
    for entry in entries:
        shared = min(len(entry), len(path))
        if shared > 1 and entry[-shared:] == path[-shared:]:
            whole[entry] = shared
    if whole:
        strength = max(whole.values())
        longest = [entry for entry, shared in whole.items() if shared == strength]
        return (longest[0], strength) if len(longest) == 1 else None
    named = [entry for entry in entries if len(entry) == 1 or _plain_name(source) in entry[:-1]]
    return (named[0], NAME_ONLY) if len(named) == 1 else None


def _key(name: str) -> str:
    """A name as a lower-case path with "/" and a suffix."""
    path = PurePosixPath("/".join(part for part in re.split(r"[\\/]+", name.strip().lower()) if part not in ("", ".")))
    return str(path) if path.suffix in IMAGE_SUFFIXES else f"{path}.jpg"


def _parts(key: str) -> tuple[str, ...]:
    """Folders in plain form and the file name without suffix."""
    *folders, name = PurePosixPath(key).with_suffix("").parts
    return (*map(_plain_name, folders), name)


def _plain_name(name: str) -> str:
    return re.sub("[-_ ]", "", name.lower())


def _plain(text: str) -> str:
    return " ".join(text.split())


def _first_answer(conversation: Any) -> str:
    """The first answer in plain spaces; empty where there is none."""
    turns = [turn for turn in conversation if isinstance(turn, dict)] if isinstance(conversation, list) else []
    value = next((turn.get("value") for turn in turns if turn.get("from") == "gpt"), None)
    return _plain(value) if isinstance(value, str) else ""
