"""Features of a frozen image encoder, computed once and read from memory-mapped shards in bfloat16.

Knows no model: an encoder is a function from images to named tensors. A cache is a folder of safetensors files whose
name is a digest of everything that its features depend on, so that other data, weights or settings never meet it.
Several processes and runs may share one, also while it is built.
"""

import hashlib
import json
import shutil
import sys
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from tqdm.auto import tqdm

FORMAT = 1
MANIFEST = "manifest.json"
IMAGES_PER_SHARD = 32
ENCODED_AT_ONCE = 16

Encode = Callable[[torch.Tensor], dict[str, torch.Tensor]]
"""(n, ...) images -> named features (n, ...) of any shapes."""


@dataclass(frozen=True)
class CacheKey:
    """What features depend on; equal keys mean equal features.

    Attributes:
        images: digest of the images in their order, see `images_digest`.
        count: number of images.
        encoder: see `encoder_digest`.
        transform: what is done between those images and the encoder.
        variants: of each image, such as its flips.
    """

    images: str
    count: int
    encoder: str
    transform: Mapping[str, Any]
    variants: int = 1

    @property
    def name(self) -> str:
        """Digest of the key: the cache's folder."""
        return hashlib.sha256(self.manifest().encode()).hexdigest()[:16]

    def manifest(self) -> str:
        """The key as JSON."""
        about = {"format": FORMAT, "images_per_shard": IMAGES_PER_SHARD, **asdict(self)}
        return json.dumps(about, indent=2, sort_keys=True, default=str)


def images_digest(images: Iterable[torch.Tensor]) -> str:
    """Digest of images as they are held in memory, in their order."""
    digest = hashlib.sha256()
    for image in images:
        _add_tensor(digest, image)
    return digest.hexdigest()


def encoder_digest(parts: Mapping[str, nn.Module], settings: Mapping[str, Any]) -> str:
    """Digest of an encoder.

    Args:
        parts: modules whose weights and buffers the features depend on, by name.
        settings: whatever else they depend on, as JSON takes it.
    """
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for part, module in sorted(parts.items()):
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(f"{part}.{name}".encode())
            _add_tensor(digest, tensor)
    return digest.hexdigest()


def _add_tensor(digest: Any, tensor: torch.Tensor) -> None:
    digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())


class FeatureCache:
    """A complete cache; reading one image maps its shard and copies nothing but its features.

    Args:
        folder: of this key.
        key: that the cache must have been written for.

    Raises:
        ValueError: if the folder was written for another key, or lacks shards.
    """

    def __init__(self, folder: Path, key: CacheKey) -> None:
        self.folder = folder
        self.key = key
        self._opened: dict[int, Any] = {}
        _check_manifest(folder, key)
        if missing := missing_shards(folder, key):
            raise ValueError(f"{folder}: {len(missing)} of {_shards(key)} shards are missing. Build the cache again")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": {}}  # data loading processes map the files themselves

    def read(self, index: int, variant: int = 0) -> dict[str, torch.Tensor]:
        """Features of a variant of an image, bfloat16.

        Raises:
            ValueError: if the shard is damaged, or another cache's.
        """
        number, row = divmod(index, IMAGES_PER_SHARD)
        if number not in self._opened:
            self._opened[number] = self._open(number)
        shard = self._opened[number]
        return {name: shard.get_slice(name)[row, variant] for name in shard.keys()}  # noqa: SIM118 (no mapping)

    def _open(self, number: int) -> Any:
        path = _shard_path(self.folder, number)
        try:
            shard = safe_open(path, framework="pt")
        except SafetensorError as error:
            raise ValueError(f"{path}: damaged ({error}). Remove it; the next run builds it again") from error
        if (shard.metadata() or {}).get("key") != f"{self.key.name}/{number}":
            raise ValueError(f"{path}: not a part of this cache. Remove it; the next run builds it again")
        return shard


def build_feature_cache(
    root: Path,
    key: CacheKey,
    variants_of: Callable[[int], torch.Tensor],
    encode: Encode,
    accelerator: Accelerator,
) -> FeatureCache:
    """The cache of a key below `root`; what is missing is built, every process some shards.

    An interrupted building goes on behind the last complete shard.

    Args:
        root: folder of any number of caches.
        key: what the features depend on.
        variants_of: number of an image -> its variants (key.variants, ...), which the encoder takes.
        encode: images to features.
        accelerator: of the run.

    Raises:
        ValueError: if a folder of this name was written for another key, or if features are not finite.
        OSError: if the disk has no room for what is missing.
    """
    folder = root / key.name
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / MANIFEST).exists():
        _write(folder / MANIFEST, lambda path: path.write_text(key.manifest(), encoding="utf-8"))
    _check_manifest(folder, key)
    if missing := missing_shards(folder, key):
        _check_room(folder, key, missing, encode(variants_of(0)), accelerator.is_main_process)
    accelerator.wait_for_everyone()  # Everyone has measured the room before anyone writes.
    own = missing[accelerator.process_index :: accelerator.num_processes]
    for number in tqdm(own, desc="cache features", unit="shard", disable=not accelerator.is_main_process):
        features = _encode_shard(key, number, variants_of, encode)
        metadata = {"key": f"{key.name}/{number}"}
        _write(_shard_path(folder, number), lambda path: save_file(features, path, metadata))  # noqa: B023
    accelerator.wait_for_everyone()
    return FeatureCache(folder, key)


def missing_shards(folder: Path, key: CacheKey) -> list[int]:
    """Numbers of the shards that are not there yet; a shard bears its name only when complete."""
    return [number for number in range(_shards(key)) if not _shard_path(folder, number).exists()]


def _shards(key: CacheKey) -> int:
    return -(-key.count // IMAGES_PER_SHARD)


def _shard_path(folder: Path, number: int) -> Path:
    return folder / f"features-{number:05d}.safetensors"


def _members(key: CacheKey, number: int) -> range:
    start = number * IMAGES_PER_SHARD
    return range(start, min(start + IMAGES_PER_SHARD, key.count))


def _check_manifest(folder: Path, key: CacheKey) -> None:
    path = folder / MANIFEST
    if path.read_text(encoding="utf-8") != key.manifest():
        raise ValueError(f"{path}: written for other images, weights or settings. Remove {folder}")


def _check_room(
    folder: Path, key: CacheKey, missing: list[int], features: dict[str, torch.Tensor], visible: bool
) -> None:
    """Say what will be written, or raise `OSError` where there is no room for it.

    Args:
        folder: of the cache.
        key: of the cache.
        missing: numbers of the shards that will be written.
        features: of one image.
        visible: whether to say it.
    """
    per_image = sum(2 * tensor.numel() for tensor in features.values())  # bfloat16
    count = sum(len(_members(key, number)) for number in missing)
    needed, free = count * per_image / 1e9, shutil.disk_usage(folder).free / 1e9
    about = f"features of {count} images in {key.variants} variants take {needed:.2f} GB of {free:.2f} GB free"
    if needed > free:
        raise OSError(f"{folder}: {about}. Choose another folder, or have fewer variants (flip: false)")
    if visible:
        tqdm.write(f"{folder}: {about}", file=sys.stderr)


def _encode_shard(
    key: CacheKey, number: int, variants_of: Callable[[int], torch.Tensor], encode: Encode
) -> dict[str, torch.Tensor]:
    """Named features (images, variants, ...), bfloat16, of a shard."""
    members, at_once = _members(key, number), max(1, ENCODED_AT_ONCE // key.variants)
    parts: dict[str, list[torch.Tensor]] = {}
    for start in range(0, len(members), at_once):
        images = [variants_of(index) for index in members[start : start + at_once]]
        for name, tensor in encode(torch.cat(images)).items():
            if not tensor.isfinite().all():
                raise ValueError(f"{name}: the encoder gives values that are not finite. Check its weights")
            parts.setdefault(name, []).append(tensor.to("cpu", torch.bfloat16))
    return {
        name: torch.cat(tensors).unflatten(0, (len(members), key.variants)).contiguous()
        for name, tensors in parts.items()
    }


def _write(path: Path, write: Callable[[Path], Any]) -> None:
    """Write under another name first; two processes may write the same file, whose contents are then equal."""
    partial = path.with_name(f"{path.stem}.{uuid.uuid4().hex}.tmp")
    try:
        write(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
