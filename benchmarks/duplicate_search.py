"""The search for duplicates: time, memory and recall on generated hashes, and recall on copies of real images.

Run `python -m defect_hub.benchmarks.duplicate_search [--raw RAW]`; it prints Markdown tables. RAW is a folder with the
raw public sets NEU-DET, X-SDD and MT; without it only the generated hashes are searched.
"""

import argparse
import io
import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from defect_hub.dataset_scripts.duplicates import (
    MIN_SIMILARITY,
    Candidates,
    compare,
    find_candidates,
    search_duplicates,
)
from defect_hub.dataset_scripts.fingerprints import HASH_BITS, ORIENTATIONS, fingerprint, turn, turned_bits

Gray = NDArray[np.uint8]
SETS = {"NEU-DET": "NEU-DET/*/*.jpg", "X-SDD": "X-SDD/X-SDD/datas/*/*", "MT": "MT/*/Imgs/*.jpg"}
RATES = (0.05, 0.10, 0.15, 0.20)


def plant(count: int, planted: int, crowd: float, seed: int = 0) -> tuple[Gray, NDArray[np.float64]]:
    """Random hashes, the last of which are copies of the first ones, turned at random and with wrong bits.

    Args:
        count: Number of hashes.
        planted: Number of copies.
        crowd: Share of the others that differ in only every eighth bit from one hash, as photos of one part in one
            pose do.
        seed: Of the random numbers.

    Returns:
        Hashes (count, 32) and the rate of wrong bits of each copy, one of `RATES`.
    """
    rng = np.random.default_rng(seed)
    bits = rng.random((count, HASH_BITS)) < 0.5
    alike = slice(planted, planted + int(crowd * (count - 2 * planted)))
    bits[alike] = bits[0] ^ (rng.random(bits[alike].shape) < 1 / 8)
    rates = rng.choice(RATES, planted)
    copies = bits[:planted] ^ (rng.random((planted, HASH_BITS)) < rates[:, None])
    turns = [turned_bits(orientation) for orientation in range(len(ORIENTATIONS))]
    for row, orientation in enumerate(rng.integers(len(ORIENTATIONS), size=planted)):
        source, inverted = turns[orientation]
        bits[count - planted + row] = copies[row, source] ^ inverted
    bits[:, 0] = False
    return np.packbits(bits, axis=1), rates


def planted_found(candidates: Candidates, count: int, planted: int) -> NDArray[np.bool_]:
    """Whether each planted pair is among the candidates."""
    pairs = set(zip(candidates.first.tolist(), candidates.second.tolist(), strict=True))
    return np.array([(row, count - planted + row) in pairs for row in range(planted)])


def generated_line(name: str, count: int, planted: int, crowd: float) -> str:
    """Search generated hashes; a row of the table."""
    hashes, rates = plant(count, planted, crowd)
    start = time.perf_counter()
    candidates = find_candidates(hashes)
    seconds = time.perf_counter() - start
    found = planted_found(candidates, count, planted)
    recalls = " | ".join(f"{found[rates == rate].mean():.3f}" for rate in RATES)
    others = len(candidates.first) - found.sum()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return f"| {name} | {count} | {seconds:.1f} | {peak:.0f} | {recalls} | {others} | {candidates.crowded} |"


def jpeg(quality: int, mode: str = "L") -> Callable[[Gray], Gray]:
    """Function that saves a picture as JPEG and reads it again."""

    def change(gray: Gray) -> Gray:
        buffer = io.BytesIO()
        Image.fromarray(gray).convert(mode).save(buffer, "JPEG", quality=quality)
        return np.asarray(Image.open(buffer).convert("L"))

    return change


def resize(factor: float) -> Callable[[Gray], Gray]:
    """Function that resizes a picture, bicubic."""

    def change(gray: Gray) -> Gray:
        size = round(gray.shape[1] * factor), round(gray.shape[0] * factor)
        return np.asarray(Image.fromarray(gray).resize(size, Image.Resampling.BICUBIC))

    return change


CHANGES: dict[str, Callable[[Gray], Gray]] = {
    "JPEG 95": jpeg(95),
    "JPEG 75": jpeg(75),
    "JPEG 50": jpeg(50),
    "RGB, JPEG 90": jpeg(90, "RGB"),
    "200 to 256 px": resize(256 / 200),
    "256 to 200 px": resize(200 / 256),
    "200 to 256 px, JPEG 50": lambda gray: jpeg(50)(resize(256 / 200)(gray)),
}


def copies_line(name: str, change: str, images: Sequence[Gray], seed: int = 0) -> str:
    """Search changed and randomly turned copies of images among the images; a row of the table."""
    rng = np.random.default_rng(seed)
    orientations = rng.integers(len(ORIENTATIONS), size=len(images))
    copies = [turn(CHANGES[change](gray), orientation) for gray, orientation in zip(images, orientations, strict=True)]
    hashes = np.stack([fingerprint(gray).bits for gray in [*images, *copies]])
    found = planted_found(find_candidates(hashes), len(hashes), len(images))
    # The turn that takes a copy back: all but the two rotations by 90 degrees are their own.
    back = [{5: 6, 6: 5}.get(orientation, orientation) for orientation in orientations.tolist()]
    pairs = zip(images, copies, back, strict=True)
    similarities = np.array([compare(gray, turn(copy, orientation))[0] for gray, copy, orientation in pairs])
    kept = found & (similarities >= MIN_SIMILARITY)
    return f"| {name} | {change} | {len(images)} | {found.mean():.4f} | {kept.mean():.4f} | {similarities.min():.2f} |"


def originals_line(name: str, images: Sequence[Gray]) -> str:
    """Search a set for its own duplicates; a row of the table."""
    prints = [fingerprint(gray) for gray in images]
    start = time.perf_counter()
    result = search_duplicates(prints, [print_.pixel_sha256.hex() for print_ in prints], images.__getitem__)
    seconds = time.perf_counter() - start
    near = sum(pair.kind == "near" for pair in result.pairs)
    return f"| {name} | {len(images)} | {len(result.pairs) - near} | {result.compared} | {near} | {seconds:.1f} |"


def fingerprint_seconds(side: int = 256, repeats: int = 500) -> float:
    """Seconds that the fingerprint of a picture takes."""
    gray = np.random.default_rng(0).integers(256, size=(side, side), dtype=np.uint8)
    start = time.perf_counter()
    for _ in range(repeats):
        fingerprint(gray)
    return (time.perf_counter() - start) / repeats


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hashes", type=int, default=100_000, help="generated hashes (default: %(default)s)")
    parser.add_argument("--planted", type=int, default=4_000, help="copies among them (default: %(default)s)")
    parser.add_argument("--raw", type=Path, help="folder with the raw public sets")
    options = parser.parse_args()
    print(f"Fingerprint of 256x256 px: {fingerprint_seconds() * 1000:.2f} ms\n")
    wrong = " | ".join(f"{rate:.0%} wrong bits" for rate in RATES)
    print(f"| hashes | number | seconds | peak MB | recall, {wrong} | other candidates | crowded |")
    print("| --- |" + " ---: |" * 9)
    for name, crowd in (("random", 0.0), ("a fifth alike", 0.2)):
        print(generated_line(name, options.hashes, options.planted, crowd))
    if options.raw is None:
        return
    copies, originals = [], []
    for name, pattern in SETS.items():
        images = [np.asarray(Image.open(path).convert("L")) for path in sorted(options.raw.glob(pattern))]
        copies += [copies_line(name, change, images) for change in tqdm(CHANGES, desc=name)]
        originals.append(originals_line(name, images))
    print("\n| set | copies | images | recall of the hash | recall of the search | least similarity |")
    print("| --- | --- | ---: | ---: | ---: | ---: |", *copies, sep="\n")
    print("\n| set | images | exact pairs | compared | near pairs | seconds |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |", *originals, sep="\n")


if __name__ == "__main__":
    main()
