"""Statistics of a built data set, after Figures 3 to 5 of SteelDefectX (Zhao et al. 2026): JSON, figures, card."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from datasets import Features
from numpy.typing import NDArray
from PIL import Image
from scipy import stats
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.manifold import TSNE
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from defect_hub.dataset_scripts.box_figures import draw_box_figures
from defect_hub.dataset_scripts.box_statistics import (
    OBJECT_COLUMNS,
    BoxTally,
    box_sizes_text,
    long_tail_text,
    read_objects,
)
from defect_hub.dataset_scripts.cards import markdown_table
from defect_hub.dataset_scripts.category_list import read_categories
from defect_hub.dataset_scripts.figures import draw_figures, outlined
from defect_hub.dataset_scripts.output import BUILD_MARK, explain_full_disk, is_build, put_in_place, row_shards
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.schema import ANNOTATIONS, TEXT_LEVELS

ATTRIBUTES = ("scale", "polarity", "saliency", "shape", "direction", "spatial_distribution", "number_of_defects")
COLUMNS = ("source", "scene", "label", "width", "height", "annotation", "attributes", *TEXT_LEVELS, "objects", "image")
"""Columns that must be there; the last two are read apart from the others."""
PLAIN_COLUMNS = COLUMNS[:-2]
SEED = 42
EMBEDDED_IMAGES = 2000
EMBEDDED_SIDE = 32
COMPONENTS = 50
PERPLEXITY = 30.0
MIN_EMBEDDED = 10
SAMPLES_PER_CLASS = 6
LISTED_SIZES = 10
MARKERS = (b"<!-- statistics -->", b"<!-- /statistics -->")
PAPER_NAME = "SteelDefectX"
PAPER = {"images": "7,778", "classes": "25", "mean": "311", "min": "50", "max": "795", "t2": "54.83"}
"""Zhao et al. 2026, section 3.2 and Figures 3 and 5; their text level T3 is t2 here."""


def dataset_statistics(folder: Path) -> dict[str, Any]:
    """Count and measure what a built data set holds; equal data gives equal numbers.

    Args:
        folder: Built data set; its Parquet files are read one row group at a time.

    Returns:
        What `json.dumps` takes: "build_digest", "images" (by split), "classes" (sizes; `log_mean` and `log_sigma` fit
        a log-normal distribution to them by maximum likelihood; `names` is the label space in label order), "sizes"
        (pixels), "annotations" and, where there is something to tell, "without_image" (rows), "defect_area" (defect
        pixels / image pixels of the masks that mark any), "objects" (see `BoxTally.statistics`), "texts" (by level:
        "words" are separated by white space, "terms" are the different non-stop words), "attributes" and "tsne". All
        moments are those of the population; kurtosis is Fisher's excess (0 for a normal distribution); skewness and
        kurtosis are null where all values are equal.

    Raises:
        DataError: The folder is not a built data set, or its files are damaged or of an earlier layout.

    Source: Zhao et al. 2026, section 3.2.
    """
    front = _front_matter(folder)
    features, tally, boxes = _features(folder), _Tally(), BoxTally()
    names = features["label"].names
    for split, table in _tables(folder, (*PLAIN_COLUMNS, *OBJECT_COLUMNS)):
        found = read_objects(table)
        boxes.add(table, found)
        marked = zip(found.counts.tolist(), found.row_areas().tolist(), strict=True)
        for row, (count, area) in zip(table.select(PLAIN_COLUMNS).to_pylist(), marked, strict=True):
            tally.add(split, row, count, area)
    result = {
        "build_digest": front[BUILD_MARK],
        "images": {split: counts.total() for split, counts in tally.classes.items()},
        "classes": _class_statistics(names, tally.classes),
        "sizes": _size_statistics(tally.sizes),
        "annotations": {kind: tally.annotations[kind] for kind in ANNOTATIONS},
    }
    pictured = _pictured(folder)
    if absent := sum(result["images"].values()) - len(pictured):
        result["without_image"] = absent
    if tally.areas:
        result["defect_area"] = _summary(tally.areas)
    if objects := boxes.statistics(features["objects"]["category"].feature.names, read_categories(folder)):
        result["objects"] = objects
    if len(tally.sources) > 1:
        result["sources"] = {name: about.statistics(names) for name, about in sorted(tally.sources.items())}
    texts = {level: texts.statistics() for level, texts in tally.texts.items() if texts.words}
    if texts:
        result["texts"] = texts
    if tally.attributes:
        result["attributes"] = {name: dict(counts.most_common()) for name, counts in tally.attributes.items()}
    embedding = _pixel_embedding(folder, pictured)
    if embedding:
        result["tsne"] = embedding
    return result


def write_statistics(folder: Path, out: Path | None = None) -> list[Path]:
    """Write `statistics/` into a built data set and show it in the card.

    The card's section lies between the markers `<!-- statistics -->` and `<!-- /statistics -->`, which are appended
    where the card has none; nothing else of the card changes. A second run gives the same files.

    Args:
        folder: Built data set.
        out: Folder to write to, with the card to change; None: the data set itself.

    Returns:
        The files written: `statistics.json` and the figures.

    Raises:
        DataError: As `dataset_statistics`, or one marker stands without the other, or the disk is full.
    """
    target = folder if out is None else out
    card = target / "README.md"
    front = _front_matter(folder)
    _insert_section(card, b"")  # A card that cannot take the section is known before the work.
    result = dataset_statistics(folder)
    figures = draw_figures(result, _samples(folder))
    if "objects" in result:
        figures |= draw_box_figures(result["objects"])
    section = _section(result, list(figures), str(front.get("pretty_name", "")).startswith(PAPER_NAME))
    place = target / "statistics"
    temporary, new_card = (target / f".statistics.{os.getpid()}.{kind}" for kind in ("tmp", "card"))
    try:
        with explain_full_disk(target):
            temporary.mkdir()
            (temporary / "statistics.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
            for name, data in figures.items():
                (temporary / name).write_bytes(data)
            new_card.write_bytes(_insert_section(card, section.encode()))
        put_in_place(temporary, place)
        new_card.replace(card)
    finally:
        new_card.unlink(missing_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
    return [place / name for name in ("statistics.json", *figures)]


@dataclass
class _Texts:
    """Word and term numbers of the texts of one level."""

    words: list[int] = field(default_factory=list)
    terms: list[int] = field(default_factory=list)
    vocabulary: set[str] = field(default_factory=set)

    def statistics(self) -> dict[str, Any]:
        return {
            "words": _summary(self.words) | {"histogram": _histogram(self.words)},
            "terms": _summary(self.terms) | {"histogram": _histogram(self.terms)},
            "vocabulary": len(self.vocabulary),
        }


@dataclass
class _Source:
    """What accumulates for one source."""

    classes: Counter[int] = field(default_factory=Counter)
    annotations: Counter[str] = field(default_factory=Counter)
    objects: int = 0
    areas: list[float] = field(default_factory=list)
    words: list[int] = field(default_factory=list)

    def statistics(self, names: Sequence[str]) -> dict[str, Any]:
        found: dict[str, Any] = {
            "images": self.classes.total(),
            "classes": {names[label]: count for label, count in sorted(self.classes.items())},
            "annotations": {kind: self.annotations[kind] for kind in ANNOTATIONS},
            "objects": self.objects,
        }
        if self.areas:
            found["defect_area"] = _summary(self.areas)
        if self.words:
            found["description_words"] = _summary(self.words)
        return found


@dataclass
class _Tally:
    """What accumulates while the rows pass: numbers and counts, no images and no texts."""

    classes: dict[str, Counter[int]] = field(default_factory=dict)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    annotations: Counter[str] = field(default_factory=Counter)
    areas: list[float] = field(default_factory=list)
    sources: dict[str, _Source] = field(default_factory=dict)
    attributes: dict[str, Counter[str]] = field(default_factory=dict)
    texts: dict[str, _Texts] = field(default_factory=lambda: {level: _Texts() for level in TEXT_LEVELS})

    def __post_init__(self) -> None:
        # A TF-IDF weight is zero only where the text lacks the term (the smoothed idf is at least 1), so the distinct
        # terms of the vectorizer's analyzer are the non-zero terms, without the matrix.
        self._terms = TfidfVectorizer(stop_words="english").build_analyzer()

    def add(self, split: str, row: Mapping[str, Any], objects: int, area: float) -> None:
        """Add a row with the number of its objects and their total area in pixels."""
        width, height = row["width"], row["height"]
        self.classes.setdefault(split, Counter())[row["label"]] += 1
        self.sizes[width, height] += 1
        self.annotations[row["annotation"]] += 1
        source = self.sources.setdefault(row["source"], _Source())
        source.classes[row["label"]] += 1
        source.annotations[row["annotation"]] += 1
        source.objects += objects
        if row["t2"]:
            source.words.append(len(row["t2"].split()))
        if row["annotation"] == "mask" and objects:
            self.areas.append(area / (width * height))
            source.areas.append(area / (width * height))
        for level, texts in self.texts.items():
            if row[level]:
                terms = set(self._terms(row[level]))
                texts.words.append(len(row[level].split()))
                texts.terms.append(len(terms))
                texts.vocabulary |= terms
        if row["attributes"]:
            self._add_attributes(row["attributes"])

    def _add_attributes(self, attributes: Mapping[str, Any]) -> None:
        values = {name: attributes[name] for name in ATTRIBUTES}
        values["first_position"] = attributes["position"][0]["cell"] if attributes["position"] else None
        for name, value in values.items():
            if value is not None:
                self.attributes.setdefault(name, Counter())[value] += 1


def _class_statistics(names: Sequence[str], classes: Mapping[str, Counter[int]]) -> dict[str, Any]:
    total: Counter[int] = sum(classes.values(), Counter())
    sizes = np.array([total[label] for label in sorted(total)])
    return {
        "number": len(sizes),
        "mean": _rounded(sizes.mean()),
        "min": int(sizes.min()),
        "max": int(sizes.max()),
        "log_mean": _rounded(np.log(sizes).mean()),
        "log_sigma": _rounded(np.log(sizes).std()),
        "names": list(names),
        "counts": {names[label]: _splits_of(label, classes) for label in sorted(total)},
    }


def _splits_of(label: int, classes: Mapping[str, Counter[int]]) -> dict[str, int]:
    return {split: counts[label] for split, counts in classes.items()}


def _size_statistics(sizes: Counter[tuple[int, int]]) -> dict[str, Any]:
    sides = np.array(list(sizes))
    # Ties in the order of the sizes, not of the rows.
    common = sorted(sizes, key=lambda size: (-sizes[size], size))[:LISTED_SIZES]
    return {
        "different": len(sizes),
        "width": [int(sides[:, 0].min()), int(sides[:, 0].max())],
        "height": [int(sides[:, 1].min()), int(sides[:, 1].max())],
        "most_common": {f"{width}x{height}": sizes[width, height] for width, height in common},
    }


def _summary(values: Sequence[float]) -> dict[str, Any]:
    numbers = np.asarray(values)
    varied = np.ptp(numbers) > 0
    return {
        "count": len(numbers),
        "mean": _rounded(numbers.mean()),
        "std": _rounded(numbers.std()),
        "median": _rounded(np.median(numbers)),
        "min": _rounded(numbers.min()),
        "max": _rounded(numbers.max()),
        "skewness": _rounded(stats.skew(numbers)) if varied else None,
        "excess_kurtosis": _rounded(stats.kurtosis(numbers, fisher=True)) if varied else None,
    }


def _histogram(values: Sequence[int]) -> list[list[int]]:
    """[value, number of texts] of every value that occurs, ascending."""
    return [[value, count] for value, count in sorted(Counter(values).items())]


def _rounded(value: Any) -> float:
    return round(float(value), 6)


def _pixel_embedding(folder: Path, pictured: Mapping[int, int]) -> dict[str, Any] | None:
    """t-SNE of gray pixels of images drawn evenly by class; None where there are too few or all are alike."""
    if len(pictured) < MIN_EMBEDDED:
        return None
    per_class = _even_share(list(pictured.values()), EMBEDDED_IMAGES)
    rows = _drawn(pictured, per_class)
    images = tqdm(_images(folder, rows, ("image",)), "t-SNE", len(rows), unit="image")
    pixels = np.array([_small_gray(row["image"]["bytes"]) for row in images])
    if not np.ptp(pixels, axis=0).any():
        return None
    perplexity = min(PERPLEXITY, (len(pixels) - 1) / 3)
    # Sums of several threads differ in the last bits, and t-SNE makes another picture of that.
    with threadpool_limits(1):
        pca = PCA(min(COMPONENTS, len(pixels) - 1), svd_solver="full")
        features = pca.fit_transform(StandardScaler().fit_transform(pixels))
        tsne = TSNE(perplexity=perplexity, random_state=SEED, n_jobs=1)
        points = tsne.fit_transform(features)
    return {
        "images": len(pixels),
        "most_per_class": int(per_class),
        "seed": SEED,
        "pixels": f"gray {EMBEDDED_SIDE}x{EMBEDDED_SIDE}, standardised over the images",
        "components": int(pca.n_components_),
        "explained_variance": _rounded(pca.explained_variance_ratio_.sum()),
        "perplexity": _rounded(perplexity),
        "kl_divergence": round(float(tsne.kl_divergence_), 4),
        "label": [pictured[row] for row in rows],
        "x": [round(float(x), 2) for x in points[:, 0]],
        "y": [round(float(y), 2) for y in points[:, 1]],
    }


def _small_gray(data: bytes) -> NDArray[np.float64]:
    """Gray values (1024,) of an encoded image at 32x32 px."""
    with Image.open(io.BytesIO(data)) as image:
        small = image.convert("L").resize((EMBEDDED_SIDE, EMBEDDED_SIDE), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float64).ravel()


def _even_share(labels: Sequence[int], limit: int) -> int:
    """The largest number of images a class that gives at most `limit` in all; smaller classes give what they have."""
    sizes = np.unique_counts(np.asarray(labels)).counts
    totals = np.minimum.outer(np.arange(1, sizes.max() + 1), sizes).sum(1)
    return int(np.searchsorted(totals, limit, side="right"))


def _drawn(pictured: Mapping[int, int], per_class: int) -> NDArray[np.int64]:
    """Ascending row numbers of up to `per_class` images of each class, drawn with a fixed seed."""
    rng = np.random.default_rng(SEED)
    rows, labels = (np.array(list(part), np.int64) for part in (pictured, pictured.values()))
    drawn = [rng.permutation(rows[labels == label])[:per_class] for label in np.unique(labels)]
    return np.sort(np.concatenate([rows[:0], *drawn]))


def _pictured(folder: Path) -> dict[int, int]:
    """Label of each row that has an image, by number of the row in the order of `_tables`."""
    # The path of an image costs nothing to read and tells whether there is one.
    tables = [table for _, table in _tables(folder, ("label", "image.path"))]
    columns = (pa.concat_tables(tables)[name] for name in ("label", "image"))
    labels, there = (column.to_pylist() for column in columns)
    return {row: label for row, label in enumerate(labels) if there[row] is not None}


def _samples(folder: Path) -> dict[int, list[NDArray[np.uint8]]]:
    """Pictures of some images of each class by label, mask or boxes outlined."""
    rows = _drawn(_pictured(folder), SAMPLES_PER_CLASS)
    pictures: dict[int, list[NDArray[np.uint8]]] = {}
    for row in _images(folder, rows, ("image", "label", "annotation", "mask", "objects")):
        pictures.setdefault(row["label"], []).append(_picture(row))
    return pictures


def _picture(row: Mapping[str, Any]) -> NDArray[np.uint8]:
    boxes: dict[bool, list[Sequence[float]]] = {True: [], False: []}
    if row["annotation"] == "boxes":
        for category, box in zip(row["objects"]["category"], row["objects"]["bbox"], strict=True):
            boxes[category == row["label"]].append(box)
    with Image.open(io.BytesIO(row["image"]["bytes"])) as image:
        if row["mask"] is None:
            return outlined(image, None, boxes[True], boxes[False])
        with Image.open(io.BytesIO(row["mask"]["bytes"])) as mask:
            return outlined(image, mask)


def _front_matter(folder: Path) -> dict[str, Any]:
    if not is_build(folder):
        raise DataError(folder, "folder", "is not a built data set", "Name an output of `defect-hub data build`")
    card = (folder / "README.md").read_text("utf-8")
    front: dict[str, Any] = yaml.safe_load(card.split("\n---\n", 1)[0])
    return front


def _shards(folder: Path) -> list[tuple[str, Path]]:
    """(split, file) of all files, train first, each split in one piece."""
    shards = [(path.stem.rsplit("-", 3)[0], path) for path in row_shards(folder)]
    if not shards:
        raise DataError(folder / "data", "Parquet", "there are no files", "Build the data set again")
    return sorted(shards, key=lambda shard: (shard[0] != "train", shard[0] == "test", shard[0]))


def _open(path: Path) -> pq.ParquetFile:
    remedy = "Build the data set again"
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(path, "Parquet", f"cannot be read ({error})", remedy) from error
    missing = [name for name in COLUMNS if name not in file.schema_arrow.names]
    if missing:
        file.close()
        raise DataError(path, "Parquet", f"lacks the columns {', '.join(missing)}: an earlier layout", remedy)
    return file


def _features(folder: Path) -> Features:
    _, path = _shards(folder)[0]
    with _open(path) as file:
        return Features.from_arrow_schema(file.schema_arrow)


def _tables(folder: Path, columns: Sequence[str]) -> Iterator[tuple[str, pa.Table]]:
    """(split, rows) of every row group in a fixed order."""
    for split, path in _shards(folder):
        with _open(path) as file:
            for group in range(file.num_row_groups):
                yield split, file.read_row_group(group, columns=list(columns))


def _images(folder: Path, rows: NDArray[np.int64], columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of these ascending numbers, in the order of `_tables`; row groups without any are not read."""
    start = 0
    for _, path in _shards(folder):
        with _open(path) as file:
            for group in range(file.num_row_groups):
                end = start + file.metadata.row_group(group).num_rows
                inside = rows[(rows >= start) & (rows < end)] - start
                if len(inside):
                    yield from file.read_row_group(group, columns=list(columns)).take(inside).to_pylist()
                start = end


def _insert_section(card: Path, section: bytes) -> bytes:
    """The card with the section between its markers; the bytes of its front matter and other text stay.

    Raises:
        DataError: One marker stands without the other, twice or in the wrong order.
    """
    data = card.read_bytes()
    front = re.match(rb"---\r?\n.*?\n---\r?\n", data, re.DOTALL)
    end = front.end() if front else 0
    body, (first, last) = data[end:], MARKERS
    if first not in body and last not in body:
        body = body.rstrip() + b"\n\n" + first + last + b"\n"
    if body.count(first) != 1 or body.count(last) != 1 or body.index(first) > body.index(last):
        pair = f"{first.decode()} and {last.decode()}"
        raise DataError(card, "markers", f"{pair} do not stand there once each, in this order", "Correct the card")
    before, rest = body.split(first)
    return data[:end] + before + first + b"\n" + section + last + rest.split(last)[1]


def _section(result: Mapping[str, Any], figures: Sequence[str], of_paper: bool) -> str:
    """Markdown of the card's section; `of_paper`: put the paper's figures beside ours."""
    parts = [
        ("samples", "Sample images of each class", _samples_text(result)),
        ("classes", "Images of each class", _classes_text(result["classes"], of_paper)),
        ("texts", "Words and terms of the texts", _texts_text(result.get("texts", {}), of_paper)),
        ("tsne", "t-SNE of the pixels", _tsne_text(result.get("tsne"))),
        ("box_sizes", "Sizes of the objects", box_sizes_text(result["objects"]) if "objects" in result else ""),
        ("long_tail", "Objects of each category", long_tail_text(result["objects"]) if "objects" in result else ""),
    ]
    files = {name.split(".")[0]: name for name in figures}
    shown = [f"![{title}](statistics/{files[key]})\n\n{text}\n" for key, title, text in parts if key in files]
    if "sources" in result:
        shown.append(_sources_text(result["sources"]))
    closing = "All numbers are in [statistics.json](statistics/statistics.json).\n"
    return "\n".join(["## Statistics\n", *shown, closing])


def _samples_text(result: Mapping[str, Any]) -> str:
    kinds = result["annotations"]
    marked = result.get("defect_area", {"count": 0})
    text = "Some images of each class, drawn at random, their masks or boxes outlined"
    text += ", boxes of other categories in blue. " if kinds["boxes"] else ". "
    text += f"Of all images, {kinds['mask']:,} have a mask, {kinds['boxes']:,} boxes, {kinds['none']:,} neither."
    if absent := result.get("without_image"):
        text += f" {absent:,} images are not in this folder and are not shown."
    if marked["count"]:
        text += (
            f" {marked['count']:,} masks mark a defect: {marked['median']:.1%} of the image in the median, "
            f"{marked['mean']:.1%} on average."
        )
    return text


def _classes_text(classes: Mapping[str, Any], of_paper: bool) -> str:
    text = (
        f"Class sizes with the log-normal distribution fitted to them (log counts: mean {classes['log_mean']:.2f}, "
        f"standard deviation {classes['log_sigma']:.2f})."
    )
    if not of_paper:
        return text
    images = sum(sum(counts.values()) for counts in classes["counts"].values())
    ours = [f"{images:,}", classes["number"], f"{classes['mean']:.1f}", classes["min"], classes["max"]]
    paper = [PAPER[key] for key in ("images", "classes", "mean", "min", "max")]
    head = ["", "images", "classes", "images a class, mean", "min", "max"]
    return f"{text}\n\n{markdown_table(head, [['here', *ours], ['paper', *paper]])}"


def _texts_text(texts: Mapping[str, Any], of_paper: bool) -> str:
    head = ["level", "texts", "words, mean", "skewness", "excess kurtosis", "terms, mean", "vocabulary"]
    rows = [
        [
            f"`{level}`",
            f"{found['words']['count']:,}",
            f"{found['words']['mean']:.2f}",
            _signed(found["words"]["skewness"]),
            _signed(found["words"]["excess_kurtosis"]),
            f"{found['terms']['mean']:.2f}",
            f"{found['vocabulary']:,}",
        ]
        for level, found in texts.items()
    ]
    if of_paper:
        head.append("paper: words, mean")
        rows = [[*row, PAPER.get(level, "")] for level, row in zip(texts, rows, strict=True)]
    text = (
        "Words are separated by white space. Terms are the different words of a text without scikit-learn's English "
        "stop words, whose list also drops words of interest here: top, bottom, side, thin, thick, numbers."
    )
    return f"{text}\n\n{markdown_table(head, rows)}"


def _sources_text(sources: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        [
            name,
            f"{found['images']:,}",
            str(len(found["classes"])),
            ", ".join(f"{kind} {count:,}" for kind, count in found["annotations"].items() if count),
            f"{found['objects']:,}",
            f"{found['defect_area']['mean']:.2%}" if "defect_area" in found else "-",
            f"{found['description_words']['mean']:.1f}" if "description_words" in found else "-",
        ]
        for name, found in sources.items()
    ]
    head = ["source", "images", "classes", "annotation", "objects", "defect area, mean", "words of `t2`, mean"]
    return f"By source:\n\n{markdown_table(head, rows)}\n"


def _signed(value: float | None) -> str:
    """A moment for the card; a dash where equal lengths leave it undefined."""
    return "-" if value is None else f"{value:+.2f}"


def _tsne_text(embedding: Mapping[str, Any] | None) -> str:
    if embedding is None:
        return ""
    return (
        f"t-SNE of {embedding['images']:,} images, at most {embedding['most_per_class']} a class: "
        f"{embedding['pixels']}, "
        f"{embedding['components']} principal components ({embedding['explained_variance']:.0%} of the variance), "
        f"perplexity {embedding['perplexity']:.0f}, seed {embedding['seed']}."
    )
