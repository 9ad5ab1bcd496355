"""Texts for categories by image-text similarity, as MMIO-80K was annotated (Zhang et al. 2025, dataset construction).

The paper takes CLIP's vectors of each category and of what its images show, their cosine as the score, pairs from 0.8
on, and lets experts check them. Here pictures of the category are cut out, each text is scored, and a CSV file lists
all pairs for a person to decide: nothing but `accepted` = yes counts.
"""

from __future__ import annotations

import csv
import hashlib
import heapq
import io
import math
import os
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np
import pyarrow.parquet as pq
import yaml
from datasets import Features
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from defect_hub.dataset_scripts.category_list import CATEGORIES_FILE, read_categories
from defect_hub.dataset_scripts.export import object_categories, read_features
from defect_hub.dataset_scripts.output import explain_full_disk, row_shards
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.readers.images import read_bytes
from defect_hub.dataset_scripts.rewrite import read_card
from defect_hub.dataset_scripts.workers import chunks

Score = Literal["cosine", "softmax"]
Texts = Mapping[str, Sequence[str]] | Sequence[str]
"""Candidate texts of each category, or of all."""
ANSWERS = ("yes", "no", "")
MIN_SIDE = 16
"""Pixels of the smallest crop's side: of a few pixels enlarged nothing can be told."""
BATCH = 32


class Encoder(Protocol):
    """A model that puts images and texts into one space of D dimensions; its vectors need no unit length.

    Attributes:
        logit_scale: Factor of the cosines before the softmax, 100 for the published CLIP models.
    """

    logit_scale: float

    def images(self, images: list[Image.Image]) -> NDArray[np.float32]:
        """Vectors (N, D) of RGB images."""

    def texts(self, texts: list[str]) -> NDArray[np.float32]:
        """Vectors (M, D) of texts."""


class Crop(NamedTuple):
    """A part of an image that shows a category.

    Attributes:
        rank: Hash that decides which crops are drawn.
        shard: File of the row.
        group: Its row group.
        row: Its place in the group.
        bbox: [x, y, width, height] in pixels; empty: the whole image.
    """

    rank: str
    shard: Path
    group: int
    row: int
    bbox: tuple[float, ...]


class Match(NamedTuple):
    """A line of the CSV file; its fields are the columns."""

    category: str
    scene: str
    text: str
    cosine: float
    softmax: float
    crops: int
    proposed: bool
    accepted: str


@dataclass(frozen=True)
class MatchReport:
    """What a matching found.

    Attributes:
        path: The CSV file.
        matches: Its lines.
        score: What the threshold is for.
        threshold: From which score the best text of a category is proposed.
        absent: Categories that no image shows; they have no lines but those a person answered.
    """

    path: Path
    matches: Sequence[Match]
    score: Score
    threshold: float
    absent: Sequence[str] = ()

    def lines(self) -> list[str]:
        """The report for a terminal."""
        categories = {match.category for match in self.matches}
        proposed = [match for match in self.matches if match.proposed]
        seen = [match for match in self.matches if match.crops]
        notes = []
        if self.absent:
            notes.append(f"{len(self.absent)} categories without images: {', '.join(self.absent)}")
        if seen and not proposed:
            best = max(seen, key=lambda match: getattr(match, self.score))
            found = f"the highest is {getattr(best, self.score):.3f} ({best.category}: {best.text!r})"
            advice = "; CLIP's cosines are low, see --score softmax" if self.score == "cosine" else ""
            notes.append(f"no {self.score} reaches {self.threshold:g}, {found}{advice}")
        total = f"{len(proposed)} of {len(categories)} categories with a proposed text"
        return [*(f"note: {note}" for note in notes), f"{self.path}: {total}; answer yes or no in column accepted"]


def match_categories(
    folder: Path,
    texts: Texts,
    encoder: Encoder,
    out_csv: Path,
    *,
    threshold: float = 0.8,
    score: Score = "cosine",
    crops_per_category: int = 32,
) -> MatchReport:
    """Score texts for the categories of a built data set and list the pairs for a person to decide.

    The vector of a category is the mean of the unit vectors of its crops. The paper's threshold of 0.8 on the cosine
    is kept, but cosines of an image and a text rarely come near it: CLIP keeps images and texts in separate regions
    (the modality gap), and fitting pairs reach about 0.2 to 0.35. The softmax over the candidates at the model's logit
    scale tells how far the best text is ahead of the others; with one candidate it is always 1. Neither tells whether
    a text is right, therefore a person decides.

    Args:
        folder: Built data set.
        texts: Candidates of each category, or the same ones for all. Texts that a person has judged in an earlier
            `out_csv` remain candidates.
        encoder: Gives the vectors.
        out_csv: File to write, best texts of each category first; answers in an earlier one are kept.
        threshold: Score from which the best text of a category is proposed.
        score: "cosine" or "softmax".
        crops_per_category: Crops of each category, drawn by hash and not by order: boxes with what is around them up
            to a square, and whole images where rows have a class and no boxes.

    Raises:
        DataError: `folder` is not a built data set; there are no texts or some for unknown categories; an earlier
            `out_csv` is malformed.
    """
    read_card(folder)
    categories = object_categories(read_features(folder))
    answers = _read_answers(out_csv, categories) if out_csv.exists() else {}
    candidates = _candidates(texts, categories, answers, folder)
    crops = _draw_crops(folder, candidates, crops_per_category)
    absent = [category for category in candidates if not crops[category]]
    for category in absent:
        candidates[category] = [text for text in candidates[category] if answers.get((category, text))]
    vectors = _category_vectors(crops, encoder)
    text_vectors = _text_vectors(candidates, encoder)
    about = read_categories(folder)
    matches: list[Match] = []
    for category, several in candidates.items():
        if not several:
            continue
        cosines = np.full(len(several), math.nan)
        if category in vectors:
            cosines = np.stack([text_vectors[text] for text in several]) @ vectors[category]
        found = zip(several, cosines, _softmax(encoder.logit_scale * cosines), strict=True)
        scene, count = about.get(category, {}).get("scene", ""), len(crops[category])
        lines = [
            Match(category, scene, text, float(cosine), float(share), count, False, answers.get((category, text), ""))
            for text, cosine, share in found
        ]
        best, *others = sorted(lines, key=lambda match: -match.cosine)
        matches += [best._replace(proposed=getattr(best, score) >= threshold), *others]
    _write_matches(out_csv, matches)
    return MatchReport(out_csv, matches, score, threshold, absent)


def read_texts(path: Path) -> Texts:
    """Candidate texts in YAML: a list for all categories, or a text or list for each.

    Raises:
        DataError: The file is missing, malformed or has neither.
    """
    try:
        given = yaml.safe_load(read_bytes(path, "texts"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(path, "texts", f"malformed ({error})", "Correct the YAML") from error
    if _are_texts(given):
        return list(given)
    if isinstance(given, dict):
        listed = {name: [several] if isinstance(several, str) else several for name, several in given.items()}
        if _are_texts(list(listed)) and all(map(_are_texts, listed.values())):
            return listed
    problem = "is neither a list of texts nor has a text or list of texts for each category"
    raise DataError(path, "texts", problem, "Quote what YAML takes for a number, a date or yes and no")


def _are_texts(given: object) -> bool:
    return isinstance(given, list) and all(isinstance(text, str) and text.strip() for text in given)


def folder_prompts(folder: Path) -> dict[str, list[str]]:
    """For each category of a built data set, the prompts of all categories of its scene.

    Raises:
        DataError: It lists none.
    """
    prompts: dict[str, list[str]] = defaultdict(list)
    categories = read_categories(folder)
    for about in categories.values():
        if about["prompt"]:
            prompts[about["scene"]].append(about["prompt"])
    if not prompts:
        raise DataError(folder, CATEGORIES_FILE, "lists no prompts", "Give the candidates with --texts")
    return {name: prompts[about["scene"]] for name, about in categories.items() if about["scene"] in prompts}


def read_matches(path: Path, categories: Sequence[str]) -> dict[str, str]:
    """The text of each category that a person accepted in a file of `match_categories`; others are left out.

    Args:
        path: The CSV file.
        categories: Names that may occur.

    Raises:
        DataError: The file is missing or malformed, names another category, has an answer that is neither yes nor no,
            or two accepted texts for a category.
    """
    accepted: dict[str, str] = {}
    for place, category, text, answer in _answer_rows(path, categories):
        if answer == "yes" and accepted.setdefault(category, text) != text:
            problem = f"accepts a second text for {category}, after {accepted[category]!r}"
            raise DataError(path, place, problem, "Accept one of them")
    return accepted


def _read_answers(path: Path, categories: Sequence[str]) -> dict[tuple[str, str], str]:
    """The answers of an earlier file by category and text."""
    return {(category, text): answer for _, category, text, answer in _answer_rows(path, categories) if answer}


def _answer_rows(path: Path, categories: Sequence[str]) -> Iterator[tuple[str, str, str, str]]:
    """(place in the file, category, text, answer) of each line."""
    try:
        content = read_bytes(path, "matches").decode("utf-8-sig")  # Spreadsheets write a byte-order mark.
        reader = csv.DictReader(io.StringIO(content, newline=""), strict=True)
        if missing := [name for name in ("category", "text", "accepted") if name not in (reader.fieldnames or ())]:
            problem = f"lacks {', '.join(missing)}"
            raise DataError(path, "columns", problem, "Save it as CSV with commas, or choose another file")
        for row in reader:
            place, answer = f"line {reader.line_num}", (row["accepted"] or "").strip().lower()
            if row["category"] not in categories:
                raise DataError(path, place, f"unknown category {row['category']!r}", "Correct or remove the line")
            if answer not in ANSWERS:
                raise DataError(path, place, f"accepted is {answer!r}", "Write yes or no, or leave it empty")
            yield place, row["category"], " ".join(row["text"].split()), answer
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(path, "matches", f"malformed ({error})", "Save it as UTF-8 CSV") from error


def _candidates(
    texts: Texts, categories: Sequence[str], answers: Mapping[tuple[str, str], str], folder: Path
) -> dict[str, list[str]]:
    """Texts to score for each category, without repeats; categories without any are left out."""
    given = texts if isinstance(texts, Mapping) else dict.fromkeys(categories, texts)
    if unknown := sorted(given.keys() - set(categories)):
        problem = f"there are no categories {', '.join(unknown)}"
        raise DataError(folder, "texts", problem, "Name those of the data set")
    found: dict[str, dict[str, None]] = {name: dict.fromkeys(given.get(name, ())) for name in categories}
    for category, text in answers:
        found[category][text] = None
    if not any(found.values()):
        raise DataError(folder, "texts", "there are none", "Give at least one text")
    return {name: list(several) for name, several in found.items() if several}


def _draw_crops(folder: Path, categories: Collection[str], count: int) -> dict[str, list[Crop]]:
    """Up to `count` crops of each category, those of the smallest hashes."""
    found: dict[str, list[Crop]] = {name: [] for name in categories}
    for shard in row_shards(folder):
        with pq.ParquetFile(shard) as file:
            features = Features.from_arrow_schema(file.schema_arrow)
            names, labels = features["objects"]["category"].feature.names, features["label"].names
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, ["sha256", "label", "image.path", "objects"])
                for row, item in enumerate(table.to_pylist()):
                    if item["image"] is None:
                        continue
                    boxes = zip(item["objects"]["category"], item["objects"]["bbox"], strict=True)
                    shown = [(names[number], box) for number, box in boxes]
                    for place, (name, box) in enumerate(shown or [(labels[item["label"]], ())]):
                        if name in found:
                            rank = hashlib.sha256(f"{item['sha256']}:{place}".encode()).hexdigest()
                            found[name].append(Crop(rank, shard, group, row, tuple(box)))
    return {name: heapq.nsmallest(count, crops) for name, crops in found.items()}


def _category_vectors(crops: Mapping[str, Sequence[Crop]], encoder: Encoder) -> dict[str, NDArray[np.float64]]:
    """Unit vector of the mean of the unit vectors of each category's crops."""
    sums: dict[str, NDArray[np.float64]] = {}
    for batch in chunks(_pictures(crops), BATCH):
        vectors = _unit(np.asarray(encoder.images([picture for _, picture in batch]), np.float64))
        for (category, _), vector in zip(batch, vectors, strict=True):
            sums[category] = sums.get(category, 0) + vector
    return {category: _unit(total) for category, total in sums.items()}


def _text_vectors(candidates: Mapping[str, Sequence[str]], encoder: Encoder) -> dict[str, NDArray[np.float64]]:
    """Unit vector of each text."""
    texts = list(dict.fromkeys(text for several in candidates.values() for text in several))
    parts = [np.asarray(encoder.texts(batch), np.float64) for batch in chunks(texts, BATCH)]
    return dict(zip(texts, _unit(np.concatenate(parts)), strict=True))


def _pictures(crops: Mapping[str, Sequence[Crop]]) -> Iterator[tuple[str, Image.Image]]:
    """(category, picture) of all crops; every image is decoded once."""
    wanted = sorted(
        ((crop, name) for name, several in crops.items() for crop in several), key=lambda item: item[0][1:4]
    )
    with tqdm(total=len(wanted), desc="crops", unit="crop") as progress:
        for (shard, group), of_group in groupby(wanted, key=lambda item: item[0][1:3]):
            with pq.ParquetFile(shard) as file:
                images = file.read_row_group(group, ["image"])["image"]
            for row, of_row in groupby(of_group, key=lambda item: item[0].row):
                picture = Image.open(io.BytesIO(images[row].as_py()["bytes"])).convert("RGB")
                for crop, name in of_row:
                    yield name, picture.crop(square_around(crop.bbox, picture.size)) if crop.bbox else picture
                    progress.update()


def square_around(bbox: Sequence[float], image_size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Corners of the square around a box, moved into the image and cut off where that is smaller.

    CLIP's own preparation cuts a square from the middle of what it gets: long boxes would lose their ends.

    Args:
        bbox: [x, y, width, height] in pixels.
        image_size: (width, height) in pixels.

    Returns:
        (left, top, right, bottom) in whole pixels, the last two exclusive.
    """
    side = max(MIN_SIDE, math.ceil(max(bbox[2:])))
    left, top = (
        max(0, min(round(start + length / 2 - side / 2), size - side))
        for start, length, size in zip(bbox[:2], bbox[2:], image_size, strict=True)
    )
    return left, top, min(left + side, image_size[0]), min(top + side, image_size[1])


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """The vectors (..., D) with length 1."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def _write_matches(path: Path, matches: Sequence[Match]) -> None:
    """Write the CSV file; an earlier one is replaced when the new one is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with explain_full_disk(path), temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(Match._fields)
            for match in matches:
                scores = [f"{value:.4f}" if match.crops else "" for value in (match.cosine, match.softmax)]
                answers = "yes" if match.proposed else "no", match.accepted
                writer.writerow([match.category, match.scene, match.text, *scores, match.crops, *answers])
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
