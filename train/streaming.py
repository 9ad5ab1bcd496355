"""Training items from a stream of rows, in constant memory.

The share of a process is cut into lanes, each a part of the data set that is read by itself; batch k comes from lane
k modulo their number. A worker serves whole lanes, so the batches do not depend on the number of workers.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import count, islice
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import torch
from datasets.distributed import split_dataset_by_node
from torch.utils.data import IterableDataset, get_worker_info

from defect_hub.train.data import DiagnosisItems, check_left_out, encoded_rows, one_line, unusable

EMPTY_PASSES = 10
"""So often a lane may find nothing to train on: the few files of a pass may be other ones in the next."""

READ_AT_ONCE = 16
LANES = 8

Row = dict[str, Any]


class ReferencePool:
    """The newest normal images of each object, encoded.

    Args:
        capacity: images of an object.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.rows: dict[str, dict[int, Row]] = {}

    def leave_out(self, batch: Iterable[Row]) -> None:
        """Remove the images of a batch, which come again in each pass."""
        names = {row["image_id"] for row in batch}
        for name, rows in self.rows.items():
            self.rows[name] = {index: row for index, row in rows.items() if row["image_id"] not in names}

    def add(self, batch: dict[int, Row]) -> None:
        """Take the normal images of a batch, by the indices of their items; the oldest others go."""
        for index, row in batch.items():
            if row["is_defective"] is False:
                rows = self.rows.setdefault(row["object_name"], {})
                rows[index] = row
                if len(rows) > self.capacity:
                    del rows[next(iter(rows))]


class StreamedDiagnosisDataset(DiagnosisItems, IterableDataset):
    """Training items of one process, without end; for a `DataLoader` of the same batch size.

    Each lane shuffles in a buffer of its own, anew in each pass. Images stay encoded until their item is yielded.
    References of a batch are drawn from the lane's newest normal images before it, and simulated defects take their
    texture from images of the batch. Rows without image or with unknown `is_defective` are left out.

    Args:
        rows: a split in the record schema, as a stream.
        processor: its image processor does the resizing.
        seed: of everything drawn.
        batch_size: of the loader, whose batches are drawn together.
        flip: whether to flip at random.
        simulated_defects: share of the normal items that get a simulated defect.
        brightness: 0-1, see [`draw_light`].
        contrast: 0-1.
        rank: number of this process.
        world_size: number of processes.
        buffer_size: rows that each lane shuffles at a time.
        lanes: parts of a process's share; the number of workers must divide it.
        references: newest normal images of an object that a lane keeps to draw references from.

    Attributes:
        skip_batches: first batches of this process that are already done; they are passed over without decoding, and
            empty items stand in their place, which the collator makes empty batches of.

    Raises:
        ValueError: when iterated, if the number of workers does not divide that of lanes, if no row can be trained on,
            or if a file or image is damaged.
    """

    def __init__(
        self,
        rows: datasets.IterableDataset,
        processor: Any,
        seed: int,
        batch_size: int,
        flip: bool = True,
        simulated_defects: float = 0.0,
        brightness: float = 0.0,
        contrast: float = 0.0,
        *,
        rank: int = 0,
        world_size: int = 1,
        buffer_size: int = 128,
        lanes: int = LANES,
        references: int = 16,
    ) -> None:
        super().__init__(processor, seed, flip, simulated_defects, brightness, contrast)
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        self.lanes = lanes
        self.references = references
        self.skip_batches = 0
        encoded = encoded_rows(rows)
        shares = world_size * lanes
        if encoded.num_shards < shares:
            encoded = encoded.reshard()  # row groups in place of files
        # With fewer than one each, every share reads all rows and keeps its own: slower, but nothing is seen twice.
        self._strategy: Any = "shards" if encoded.num_shards >= shares else "examples"
        # One input at a time: several are read by threads, and their end waits 5 s in each pass. Lanes mix the files.
        self._rows = encoded.shuffle(seed=seed, buffer_size=buffer_size, max_buffer_input_shards=1)
        self._pool = ReferencePool(references)  # of the batch at hand
        self._batch: dict[int, Row] = {}
        self._decoded: dict[int, torch.Tensor] = {}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        if self.lanes % workers:
            raise ValueError(
                f"num_workers={workers}: does not divide the {self.lanes} lanes of a stream. Choose another"
            )
        own = {lane: self._lane_rows(lane) for lane in range(worker, self.lanes, workers)}
        pools = {lane: ReferencePool(self.references) for lane in own}
        for number in count(worker, workers):
            lane = number % self.lanes
            first = number * self.batch_size
            batch = {
                position * self.world_size + self.rank: row
                for position, row in enumerate(islice(own[lane], self.batch_size), first)
            }
            pools[lane].leave_out(batch.values())
            if number < self.skip_batches:
                yield from ({} for _ in batch)
            else:
                self._pool, self._batch, self._decoded = pools[lane], batch, {}
                for index in batch:
                    yield self._item(index)
            pools[lane].add(batch)

    def _item(self, index: int) -> dict[str, Any]:
        row = self._batch[index]
        (image,) = self.batch_images([index])
        return self.changed({**self.record(row), "image": image, "mask": self.resized_mask(row), "index": index})

    def pass_rows(self, lane: int, number: int) -> Iterator[Row]:
        """All encoded rows of a lane in a pass: every row of the data set is in one lane of one process."""
        share, shares = self.rank * self.lanes + lane, self.world_size * self.lanes
        rows = split_dataset_by_node(self._rows, share, shares, self._strategy)
        rows.set_epoch(number)
        try:
            # `iter` and not plain iteration, which would cut the lane once more among the workers.
            for batch in rows.iter(READ_AT_ONCE):
                for values in zip(*batch.values(), strict=True):
                    yield dict(zip(batch, values, strict=True))
        except pa.ArrowInvalid as error:
            raise ValueError(f"a file of the stream is damaged ({one_line(error)}). Copy or build it again") from error

    def _lane_rows(self, lane: int) -> Iterator[Row]:
        """Rows of a lane that can be trained on, pass after pass."""
        where = f"share {self.rank * self.lanes + lane + 1} of {self.world_size * self.lanes}"
        empty = 0
        for number in count():
            left_out: Counter[str] = Counter()
            seen = 0
            for row in self.pass_rows(lane, number):
                seen += 1
                if reason := unusable(row["image"] is not None, row["is_defective"]):
                    left_out[reason] += 1
                else:
                    yield row
            empty = empty + 1 if left_out.total() == seen else 0
            if empty == EMPTY_PASSES or (number == lane == 0 and not empty):
                check_left_out(left_out, seen, where)

    def batch_images(self, indices: Iterable[int]) -> list[torch.Tensor]:
        candidates = self._pool.rows.values()
        images = []
        for index in indices:
            if index not in self._decoded:
                row = self._batch.get(index) or next(rows[index] for rows in candidates if index in rows)
                self._decoded[index] = self.resized(row)
            images.append(self._decoded[index])
        return images

    def draw_donor(self, rng: np.random.Generator) -> int:
        return list(self._batch)[int(rng.integers(len(self._batch)))]

    def normal_indices(self, object_name: str) -> np.ndarray:
        return np.array(list(self._pool.rows.get(object_name, {})), dtype=np.int64)
