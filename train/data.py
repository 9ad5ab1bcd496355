"""Rows of the record schema as training items, map-style: decoded once or in each epoch, and changed at random."""

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision import tv_tensors
from tqdm.auto import tqdm

from defect_hub.modeling.inspection_images import to_rgb
from defect_hub.train.augmentation import (
    FLIPS,
    change_light,
    draw_flips,
    draw_light,
    flip_sample,
    mirror_words,
)
from defect_hub.train.feature_cache import FeatureCache
from defect_hub.train.simulated_defects import simulate_defect

NO_MASK = -100
SIMULATION_STREAM = 1  # of random numbers; flips and light have their own
RECORD_COLUMNS = ("image", "image_id", "sha256", "is_defective", "object_name", "mask")
ITEM_COLUMNS = ("image", "image_id", "is_defective", "object_name", "mask", "conversation")


def load_split(data: str, split: str, config: str = "default", streaming: bool = False) -> Any:
    """A split of a data set in the record schema.

    Args:
        data: folder or Hub id.
        split: name of it.
        config: of the data set.
        streaming: read it row by row, without a copy on the disk.

    Returns:
        A `datasets.Dataset`, or a `datasets.IterableDataset`.

    Raises:
        ValueError: if there is no such data set, config or split, if a file is damaged or the split empty, or if it
            lacks columns of the record schema.
    """
    try:
        loaded = datasets.load_dataset(data, config, streaming=streaming)
        return _checked(loaded, data, split, streaming)
    except (ConnectionError, FileNotFoundError) as error:
        found = (
            "no data files in this folder"
            if Path(data).is_dir()
            else f"no such folder, and not to be had from the Hub ({one_line(error)})"
        )
        raise ValueError(
            f"{data}: {found}. Build it with `defect-hub data build`, or name a data set of the Hub"
        ) from error
    except (datasets.exceptions.DatasetGenerationError, pa.ArrowInvalid) as error:
        raise ValueError(unreadable(data, config, error)) from error
    except ValueError as error:
        if not str(error).startswith("BuilderConfig"):
            raise
        names = ", ".join(datasets.get_dataset_config_names(data))
        raise ValueError(f"{data}: config: no {config!r} among {names}. Name one of them") from error


def _checked(loaded: Any, data: str, split: str, streaming: bool) -> Any:
    if split not in loaded:
        raise ValueError(f"{data}: split: no {split!r} among {', '.join(loaded)}. Name one of them")
    rows = loaded[split]
    columns = rows.column_names or list(next(iter(rows), {}))  # a stream may not know them
    if missing := [name for name in RECORD_COLUMNS if name not in columns]:
        raise ValueError(
            f"{data}: {', '.join(missing)}: no such column in {split!r}. Give a data set in the record schema "
            f"(docs/training_data.md), which has {', '.join(RECORD_COLUMNS)}"
        )
    if not (any(True for _ in rows.select_columns(["image_id"])) if streaming else len(rows)):
        raise ValueError(f"{data}: {split!r} holds no rows. Name another split")
    return rows


def unreadable(data: str, config: str, error: BaseException) -> str:
    """Which file of a data set cannot be read, where that can be found out, and why, in one line."""
    files = datasets.load_dataset_builder(data, config).config.data_files or {}
    for path in (path for paths in files.values() for path in paths if Path(path).is_file()):
        try:
            if pq.read_metadata(path).num_rows == 0:
                return f"{path}: holds no rows. Remove the file"
        except pa.ArrowInvalid as cause:
            return f"{path}: damaged ({one_line(cause)}). Copy or build it again"
    return f"{data}: cannot be read ({one_line(error.__cause__ or error)}). Copy or build it again"


def one_line(error: BaseException) -> str:
    """The message of an error without line breaks."""
    return " ".join(str(error).split())


def draw_references(
    rows: datasets.Dataset, shots: int, draws: int, seed: int, object_name: str | None = None
) -> list[list[int]]:
    """Choose normal images at random to compare with.

    Args:
        rows: a split in the record schema, usually that for training.
        shots: references of a draw, all different.
        draws: number of draws; each depends on seed, shots and its own number alone.
        seed: of the draws.
        object_name: that the references show; None: any.

    Returns:
        Indices of the rows, a list for each draw.

    Raises:
        ValueError: if there are fewer normal images.
    """
    normals = [
        index
        for index, (defective, name) in enumerate(zip(rows["is_defective"], rows["object_name"], strict=True))
        if defective is False and object_name in (None, name)
    ]
    if len(normals) < shots:
        about = f" of {object_name!r}" if object_name else ""
        raise ValueError(
            f"{shots} references: the split has {len(normals)} normal images{about} to draw from. Take fewer"
        )
    return [
        np.random.default_rng([seed, shots, draw]).choice(normals, size=shots, replace=False).tolist()
        for draw in range(draws)
    ]


# From a row to an item


def encoded_rows(rows: Any) -> Any:
    """The columns that items are made of; images stay as they lie in the file until they are needed.

    Raises:
        ValueError: if one is missing.
    """
    if rows.column_names and (missing := [name for name in ITEM_COLUMNS if name not in rows.column_names]):
        raise ValueError(
            f"{', '.join(missing)}: no such column. Give a data set in the record schema (docs/training_data.md)"
        )
    encoded = rows.select_columns(list(ITEM_COLUMNS))
    for name in ("image", "mask"):
        encoded = encoded.cast_column(name, datasets.Image(decode=False))
    return encoded


def unusable(has_image: bool, is_defective: bool | None) -> str | None:
    """Why a row is no training item; None: it is one."""
    if not has_image:
        return "without image"
    return "of unknown is_defective" if is_defective is None else None


def check_left_out(left_out: Counter, count: int, where: str) -> None:
    """Say in one line which rows are no training items.

    Args:
        left_out: their numbers, by reason.
        count: of all rows.
        where: they lie.

    Raises:
        ValueError: if they are all.
    """
    reasons = ", ".join(f"{number} {reason}" for reason, number in left_out.items())
    if left_out.total() == count:
        raise ValueError(f"{where}: no row can be trained on ({reasons or 'there is none'}). Give another split")
    if left_out and os.environ.get("RANK", "0") == "0":
        print(f"{where}: {left_out.total()} of {count} rows are left out: {reasons}", file=sys.stderr)


def decoded(encoded: dict[str, Any], image_id: str) -> Image.Image:
    """The picture of an encoded image.

    Raises:
        ValueError: if it is damaged, naming the row.
    """
    try:
        return datasets.Image().decode_example(encoded)
    except (OSError, ValueError, SyntaxError) as error:
        raise ValueError(f"{image_id}: the image cannot be decoded ({one_line(error)}). Replace it") from error


def resized_uint8(image: Image.Image, processor: Any) -> torch.Tensor:
    """(3, side, side) uint8: the processor's own resizing, before normalisation."""
    from_processor = processor.image_processor(
        [to_rgb(image)], do_rescale=False, do_normalize=False, return_tensors="pt"
    )
    return from_processor["pixel_values"][0].round().clamp(0, 255).to(torch.uint8)


def square_mask(mask: Image.Image | None, is_defective: bool, side: int) -> torch.Tensor:
    """(side, side) int16 target: 0 or 1, all `NO_MASK` for a defective image without pixel annotation."""
    if mask is None:
        return torch.full((side, side), NO_MASK if is_defective else 0, dtype=torch.int16)
    resized = mask.convert("L").resize((side, side), Image.Resampling.BILINEAR)
    return torch.from_numpy((np.asarray(resized) > 127).astype(np.int16))


class DiagnosisItems:
    """How rows become items; what map-style and streamed training data share.

    An item depends only on its row and on seed, epoch and index, so an interrupted run goes on bit for bit, and no
    worker's own random numbers matter.

    Args:
        processor: its image processor does the resizing.
        seed: of everything drawn.
        flip: whether to flip at random.
        simulated_defects: share of the normal items that get a simulated defect, drawn anew in each epoch.
        brightness: 0-1, see [`draw_light`].
        contrast: 0-1.

    Attributes:
        epoch: whose changes are drawn.
        features: of the images in their flips; items hold them in place of the images. None: items hold images.
    """

    def __init__(
        self, processor: Any, seed: int, flip: bool, simulated_defects: float, brightness: float, contrast: float
    ) -> None:
        self.processor = processor
        self.seed = seed
        self.flip = flip
        self.simulated_defects = simulated_defects
        self.brightness = brightness
        self.contrast = contrast
        self.epoch = 0
        self.features: FeatureCache | None = None
        self.side: int = processor.image_processor.size["height"]

    def normal_indices(self, object_name: str) -> np.ndarray:
        """(n,) int64: what can serve as references of an object."""
        raise NotImplementedError

    def batch_images(self, indices: Iterable[int]) -> list[torch.Tensor]:
        """(3, side, side) uint8 each: images used by the batch at hand, unchanged; none is decoded twice for it."""
        raise NotImplementedError

    def draw_donor(self, rng: np.random.Generator) -> int:
        """Index of an image that gives its texture to a simulated defect."""
        raise NotImplementedError

    def resized(self, row: dict[str, Any]) -> torch.Tensor:
        """(3, side, side) uint8: image of an encoded row."""
        return resized_uint8(decoded(row["image"], row["image_id"]), self.processor)

    def resized_mask(self, row: dict[str, Any]) -> torch.Tensor:
        """(side, side) int16: mask of an encoded row."""
        mask = row["mask"] and decoded(row["mask"], row["image_id"])
        return square_mask(mask, row["is_defective"], self.side)

    def record(self, row: dict[str, Any]) -> dict[str, Any]:
        """What an item says besides its image.

        Raises:
            ValueError: if its conversation is no question and answer.
        """
        turns = [turn["value"] for turn in row["conversation"] or []]
        if len(turns) < 2:
            raise ValueError(f"{row['image_id']}: conversation: {len(turns)} turns. Give a question and an answer")
        names = {name: row[name] for name in ("image_id", "is_defective", "object_name")}
        return {**names, "question": turns[0], "answer": turns[1]}

    def changed(self, item: dict[str, Any]) -> dict[str, Any]:
        """An item after its random changes.

        Args:
            item: a record with `index`, `mask` and, unless there are features, `image`.
        """
        draw = (self.seed, self.epoch, item["index"])
        if self.simulated_defects and not item["is_defective"]:
            item |= self._simulated(item)
        flips = draw_flips(*draw) if self.flip else (False, False)
        sample: dict[str, tv_tensors.TVTensor] = {"mask": tv_tensors.Mask(item["mask"])}
        if self.features is not None:
            item["features"] = self.features.read(item["index"], flips[0] + 2 * flips[1])
        else:
            image = item["image"]
            if self.brightness or self.contrast:
                image = change_light(image, *draw_light(*draw, self.brightness, self.contrast))
            sample["image"] = tv_tensors.Image(image)
        flipped = {name: part.as_subclass(torch.Tensor) for name, part in flip_sample(sample, *flips).items()}
        return {**item, **flipped, "answer": mirror_words(item["answer"], *flips)}

    def _simulated(self, item: dict[str, Any]) -> dict[str, Any]:
        """What a simulated defect changes of a normal item; nothing where it gets none."""
        rng = np.random.default_rng([self.seed, self.epoch, item["index"], SIMULATION_STREAM])
        if rng.random() >= self.simulated_defects:
            return {}
        (donor,) = self.batch_images([self.draw_donor(rng)])
        image, texture = (each.permute(1, 2, 0).numpy() for each in (item["image"], donor))
        defect = simulate_defect(image, texture, item["object_name"], rng)
        if defect is None:
            return {}
        return {
            "image": torch.from_numpy(defect.image).permute(2, 0, 1),
            "mask": torch.from_numpy(defect.mask.astype(np.int16)),
            "answer": defect.answer,
            "is_defective": True,
        }


class DiagnosisDataset(DiagnosisItems, Dataset):
    """Map-style training items.

    Args:
        rows: a split in the record schema; rows without image or with unknown `is_defective` are left out.
        processor: its image processor does the resizing.
        seed: of everything drawn.
        flip: whether to flip at random.
        simulated_defects: share of the normal items that get a simulated defect, drawn anew in each epoch.
        brightness: 0-1, see [`draw_light`].
        contrast: 0-1.
        decode_once: decode and resize all images now and keep them as uint8. Else rows stay on the disk, and whoever
            asks for a batch decodes it; the items are the same bit for bit.

    Attributes:
        features: of the images in their `variants`; items hold them in place of the images. None: items hold images.

    Raises:
        ValueError: if no row can be trained on, or a column is missing.
    """

    def __init__(
        self,
        rows: datasets.Dataset,
        processor: Any,
        seed: int,
        flip: bool = True,
        simulated_defects: float = 0.0,
        brightness: float = 0.0,
        contrast: float = 0.0,
        decode_once: bool = True,
    ) -> None:
        super().__init__(processor, seed, flip, simulated_defects, brightness, contrast)
        encoded = encoded_rows(rows)
        self._rows = encoded.select(usable_rows(encoded))
        self._normals = _normals_by_object(self._rows)
        self._batch: dict[int, torch.Tensor] = {}
        self._images: torch.Tensor | None = None  # (N, 3, side, side) uint8
        self._masks: torch.Tensor | None = None  # (N, side, side) int16
        self._records: list[dict[str, Any]] = []
        if decode_once:
            self._decode_all()

    def _decode_all(self) -> None:
        # One tensor and not many: each is a file descriptor on its way to a spawned worker.
        images = torch.empty(len(self), 3, self.side, self.side, dtype=torch.uint8)
        masks = torch.empty(len(self), self.side, self.side, dtype=torch.int16)
        for index, row in enumerate(tqdm(self._rows, desc="decode", leave=False)):
            images[index], masks[index] = self.resized(row), self.resized_mask(row)
            self._records.append(self.record(row))
        self._images, self._masks = images, masks

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose changes are drawn."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """The items of a batch, which share what is decoded."""
        self._batch = {}
        return [self.changed(self._unchanged(index)) for index in indices]

    def _unchanged(self, index: int) -> dict[str, Any]:
        if self._images is not None and self._masks is not None:
            return {**self._records[index], "image": self._images[index], "mask": self._masks[index], "index": index}
        row = self._rows[int(index)]
        item = {**self.record(row), "mask": self.resized_mask(row), "index": index}
        if self.features is None:
            if index not in self._batch:
                self._batch[index] = self.resized(row)
            item["image"] = self._batch[index]
        return item

    def image(self, index: int) -> torch.Tensor:
        """(3, side, side) uint8: an image, unchanged."""
        if self._images is not None:
            return self._images[index]
        return self.resized(self._rows[int(index)])

    @property
    def images(self) -> Iterator[torch.Tensor]:
        """(3, side, side) uint8 each: all images, unchanged, one after the other."""
        return map(self.image, range(len(self)))

    def batch_images(self, indices: Iterable[int]) -> list[torch.Tensor]:
        images = []
        for index in map(int, indices):
            if index not in self._batch:
                self._batch[index] = self.image(index)
            images.append(self._batch[index])
        return images

    def draw_donor(self, rng: np.random.Generator) -> int:
        return int(rng.integers(len(self)))

    def variants(self, index: int) -> torch.Tensor:
        """(V, 3, side, side) uint8: the image in all flips that items can have, in the order of `FLIPS`."""
        image = self.image(index)
        return torch.stack([image.flip(axes) for axes in (FLIPS if self.flip else FLIPS[:1])])

    def normal_indices(self, object_name: str) -> np.ndarray:
        return self._normals.get(object_name, np.empty(0, dtype=np.int64))


def usable_rows(rows: datasets.Dataset) -> np.ndarray:
    """(n,) int64: rows that can be trained on; says how many cannot.

    Raises:
        ValueError: if none can.
    """
    withheld = rows.data.column("image").null_count > 0  # else no image need be read
    columns = ["is_defective", "image"] if withheld else ["is_defective"]
    left_out: Counter[str] = Counter()
    kept = []
    tables = rows.select_columns(columns).with_format("arrow").iter(batch_size=1000)
    for start, table in zip(range(0, len(rows), 1000), tables, strict=True):
        has_image = table.column("image").is_valid().to_pylist() if withheld else [True] * len(table)
        for number, row in enumerate(zip(has_image, table.column("is_defective").to_pylist(), strict=True), start):
            if reason := unusable(*row):
                left_out[reason] += 1
            else:
                kept.append(number)
    check_left_out(left_out, len(rows), str(rows.split or "data"))
    return np.array(kept, dtype=np.int64)


def _normals_by_object(rows: datasets.Dataset) -> dict[str, np.ndarray]:
    """(n,) int64 by object: the normal rows that show it."""
    if not len(rows):
        return {}
    table = rows.select_columns(["is_defective", "object_name"]).with_format("arrow")[:]
    names, defective = (table.column(name).to_numpy() for name in ("object_name", "is_defective"))
    normal = ~defective.astype(bool)
    return {name: np.flatnonzero(normal & (names == name)) for name in set(names[normal])}


class DiagnosisCollator:
    """Items to model inputs; some batches also get normal references, so both protocols are learned.

    An image is no reference of its own batch where enough others remain. Where the data set has cached features, they
    take the place of the images, also those of the references. `ids` are the names of the images, for messages.

    Args:
        dataset: where references come from.
        reference_counts: numbers of references to draw from, one draw a batch; 0 is zero-shot.
    """

    def __init__(self, dataset: DiagnosisItems, reference_counts: list[int]) -> None:
        self.dataset = dataset
        self.processor = dataset.processor
        self.reference_counts = reference_counts

    def normalize(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, S, S) uint8 -> the model's `pixel_values`."""
        return self.processor.image_processor(list(images), do_resize=False, return_tensors="pt")["pixel_values"]

    def _visual(self, items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Images, or their features where the data set has them."""
        if self.dataset.features is None:
            return {"pixel_values": self.normalize(torch.stack([item["image"] for item in items]))}
        return {
            name: torch.stack([item["features"][name] for item in items]).float()
            for name in ("cls_features", "local_features")
        }

    def _references(self, indices: list[int]) -> dict[str, torch.Tensor]:
        """The same of normal images, unchanged: (len(indices), ...)."""
        features = self.dataset.features
        if features is None:
            return {"reference_pixel_values": self.normalize(torch.stack(self.dataset.batch_images(indices)))}
        return {"reference_features": torch.stack([features.read(i)["local_features"] for i in indices]).float()}

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        """A batch; empty for the placeholders of a stream."""
        if not items[0]:
            return {}
        names = [item["object_name"] for item in items]
        batch = {
            **self._visual(items),
            "ids": [item["image_id"] for item in items],
            "masks": torch.stack([item["mask"] for item in items]).long(),
            "is_defective": torch.tensor([item["is_defective"] for item in items]),
            "prompt_input_ids": self.processor.prompt_input_ids(names),
        }
        if self.processor.num_image_tokens:  # else a detector, which reads no text
            batch |= self.processor.tokenize([item["question"] for item in items], [item["answer"] for item in items])
        rng = np.random.default_rng([self.dataset.seed, self.dataset.epoch, items[0]["index"]])
        count = int(rng.choice(self.reference_counts))
        groups = sorted(set(names)) if len(set(names)) == 1 else names  # one shared set, or one set an image
        normals = {name: self.dataset.normal_indices(name) for name in set(names)}
        able = [len(normals[name]) >= count for name in groups]
        if count and any(able):
            members = [item["index"] for item in items]
            found = {
                place: rng.choice(_others(normals[groups[place]], members, count), count, replace=False)
                for place in range(len(groups))
                if able[place]
            }
            # Objects without enough normal images hold the place with another's, which the model leaves out.
            drawn = [found.get(place, next(iter(found.values()))) for place in range(len(groups))]
            references = self._references([int(i) for indices in drawn for i in indices])
            batch |= {name: value.unflatten(0, (len(groups), count)) for name, value in references.items()}
            if not all(able):
                batch["has_references"] = torch.tensor(able)
        return batch


def _others(normals: np.ndarray, members: list[int], count: int) -> np.ndarray:
    """Normal images outside the batch; all of them where fewer than `count` lie outside."""
    others = normals[~np.isin(normals, members)]
    return others if len(others) >= count else normals
