"""Rows of the record schema as training items: decoded once, flipped together with their words."""

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from defect_hub.modeling.inspection_images import to_rgb

NO_MASK = -100


def mirror_words(text: str, horizontal: bool, vertical: bool) -> str:
    """Position words as they read after a flip: left and right swap, top and bottom swap."""
    swaps = ({"left": "right", "right": "left"} if horizontal else {}) | (
        {"top": "bottom", "bottom": "top"} if vertical else {}
    )
    return " ".join(_swap_word(word, swaps) for word in text.split(" "))


def _swap_word(word: str, swaps: dict[str, str]) -> str:
    stem = word.rstrip(".,;")
    return swaps.get(stem, stem) + word[len(stem) :]


def load_split(data: str, split: str) -> datasets.Dataset:
    """A split of a data set in the record schema, by folder or Hub id.

    Raises:
        ValueError: if it has no such split, or there is no such data set.
    """
    try:
        loaded = datasets.load_dataset(data, "default")
    except (ConnectionError, FileNotFoundError) as error:
        if Path(data).is_dir():
            raise
        raise ValueError(
            f"{data}: no such folder, and not to be had from the Hub ({error}). Build it with `defect-hub data "
            "build`, or name a data set of the Hub"
        ) from error
    if split not in loaded:
        raise ValueError(f"{data}: split: no {split!r} among {', '.join(loaded)}. Name one of them")
    return loaded[split]


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


def square_mask(mask: Image.Image | None, is_defective: bool, side: int) -> torch.Tensor:
    """(side, side) int16 target: 0 or 1, all `NO_MASK` for a defective image without pixel annotation."""
    if mask is None:
        return torch.full((side, side), NO_MASK if is_defective else 0, dtype=torch.int16)
    resized = mask.convert("L").resize((side, side), Image.Resampling.BILINEAR)
    return torch.from_numpy((np.asarray(resized) > 127).astype(np.int16))


class DiagnosisDataset(Dataset):
    """Map-style training items; images are decoded and resized once and kept as uint8.

    `dataset[i]` depends only on seed, epoch and i, so an interrupted run goes on bit for bit.

    Args:
        rows: a split in the record schema; rows with unknown `is_defective` are left out.
        processor: its image processor does the resizing.
        seed: of the flips.
        flip: whether to flip at random.
    """

    def __init__(self, rows: datasets.Dataset, processor: Any, seed: int, flip: bool = True) -> None:
        self.processor = processor
        self.seed = seed
        self.flip = flip
        self.epoch = 0
        side = processor.image_processor.size["height"]
        self.images: list[torch.Tensor] = []  # (3, side, side) uint8
        self.masks: list[torch.Tensor] = []  # (side, side) int16
        self.records: list[dict[str, Any]] = []
        for row in tqdm(rows, desc="decode", leave=False):
            if row["is_defective"] is None:
                continue
            self.images.append(resized_uint8(row["image"], processor))
            self.masks.append(square_mask(row["mask"], row["is_defective"], side))
            question, answer = (turn["value"] for turn in row["conversation"][:2])
            self.records.append(
                {
                    "is_defective": row["is_defective"],
                    "object_name": row["object_name"],
                    "question": question,
                    "answer": answer,
                }
            )

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose flips are drawn."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record, image, mask = self.records[index], self.images[index], self.masks[index]
        answer = record["answer"]
        if self.flip:
            horizontal, vertical = np.random.default_rng([self.seed, self.epoch, index]).random(2) < 0.5
            dims = [axis for axis, flipped in ((-1, horizontal), (-2, vertical)) if flipped]
            image, mask = image.flip(dims), mask.flip(dims)
            answer = mirror_words(answer, horizontal, vertical)
        return {**record, "answer": answer, "image": image, "mask": mask, "index": index}

    def normal_indices(self, object_name: str) -> list[int]:
        """Items that can serve as references of an object."""
        return [i for i, r in enumerate(self.records) if not r["is_defective"] and r["object_name"] == object_name]


def resized_uint8(image: Image.Image, processor: Any) -> torch.Tensor:
    """(3, side, side) uint8: the processor's own resizing, before normalisation."""
    from_processor = processor.image_processor(
        [to_rgb(image)], do_rescale=False, do_normalize=False, return_tensors="pt"
    )
    return from_processor["pixel_values"][0].round().clamp(0, 255).to(torch.uint8)


class DiagnosisCollator:
    """Items to model inputs; some batches also get normal references, so both protocols are learned.

    Args:
        dataset: where references come from.
        reference_counts: numbers of references to draw from, one draw a batch; 0 is zero-shot.
    """

    def __init__(self, dataset: DiagnosisDataset, reference_counts: list[int]) -> None:
        self.dataset = dataset
        self.processor = dataset.processor
        self.reference_counts = reference_counts
        names = {record["object_name"] for record in dataset.records}
        self.normals = {name: dataset.normal_indices(name) for name in names}

    def normalize(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, S, S) uint8 -> the model's `pixel_values`."""
        return self.processor.image_processor(list(images), do_resize=False, return_tensors="pt")["pixel_values"]

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        names = [item["object_name"] for item in items]
        batch = {
            "pixel_values": self.normalize(torch.stack([item["image"] for item in items])),
            "masks": torch.stack([item["mask"] for item in items]).long(),
            "is_defective": torch.tensor([item["is_defective"] for item in items]),
            "prompt_input_ids": self.processor.prompt_input_ids(names),
            **self.processor.tokenize([item["question"] for item in items], [item["answer"] for item in items]),
        }
        rng = np.random.default_rng([self.dataset.seed, self.dataset.epoch, items[0]["index"]])
        count = int(rng.choice(self.reference_counts))
        groups = sorted(set(names)) if len(set(names)) == 1 else names  # one shared set, or one set an image
        if count and all(len(self.normals[name]) >= count for name in groups):
            drawn = [rng.choice(self.normals[name], size=count, replace=False) for name in groups]
            references = torch.stack([self.dataset.images[i] for indices in drawn for i in indices])
            batch["reference_pixel_values"] = self.normalize(references).unflatten(0, (len(groups), count))
        return batch
