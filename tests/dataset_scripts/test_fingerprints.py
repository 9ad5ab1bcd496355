import hashlib
import io
import pickle

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn
from scipy.ndimage import gaussian_filter

from defect_hub.dataset_scripts.fingerprints import (
    HASH_BITS,
    ORIENTATIONS,
    fingerprint,
    miniature,
    turn,
    turned_bits,
)

Gray = NDArray[np.uint8]


def texture(seed: int, shape: tuple[int, int] = (64, 64), grain: float = 1.5) -> Gray:
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=shape), grain)
    return np.clip(120 + 25 * noise / noise.std(), 0, 255).astype(np.uint8)


def bits(gray: Gray) -> NDArray[np.uint8]:
    return np.unpackbits(fingerprint(gray).bits)


def distance(a: Gray, b: Gray) -> int:
    return int((bits(a) != bits(b)).sum())


@pytest.mark.parametrize("shape", [(64, 64), (130, 128), (16, 40)])
def test_bits_are_the_signs_of_the_cosine_transform(shape: tuple[int, int]) -> None:
    gray = texture(0, shape)
    expected = dctn(gray.astype(float))[:16, :16] > 0
    expected[0, 0] = False
    assert np.array_equal(bits(gray).reshape(16, 16), expected)


@pytest.mark.parametrize("orientation", range(1, len(ORIENTATIONS)))
def test_turns_have_the_names_of_pillow(orientation: int) -> None:
    gray = texture(1, (40, 64))
    expected = Image.fromarray(gray).transpose(Image.Transpose[ORIENTATIONS[orientation].upper()])
    assert np.array_equal(turn(gray, orientation), np.asarray(expected))


@pytest.mark.parametrize("orientation", range(len(ORIENTATIONS)))
def test_hash_of_a_turned_picture_follows_from_the_upright_one(orientation: int) -> None:
    gray = texture(2, (130, 122))
    source, inverted = turned_bits(orientation)
    assert np.array_equal(bits(turn(gray, orientation)), bits(gray)[source] ^ inverted)


def test_size_and_compression_change_few_bits_and_another_picture_half() -> None:
    gray = texture(3, (200, 200))
    buffer = io.BytesIO()
    Image.fromarray(gray).resize((256, 256), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=50)
    assert distance(gray, np.asarray(Image.open(buffer))) < 20
    assert 100 < distance(gray, texture(4, (200, 200))) < 156


def test_pixel_digest_knows_values_and_size() -> None:
    gray = texture(5, (32, 64))
    digest = fingerprint(gray).pixel_sha256
    assert digest == hashlib.sha256(b"32x64 " + gray.tobytes()).digest()
    assert fingerprint(np.asfortranarray(gray)).pixel_sha256 == digest
    assert fingerprint(gray.reshape(64, 32)).pixel_sha256 != digest
    changed = gray.copy()
    changed[7, 7] ^= 1
    assert fingerprint(changed).pixel_sha256 != digest


def test_only_even_pictures_are_flat() -> None:
    even = np.full((200, 200), 130, np.uint8)
    assert fingerprint(even).flat
    even[100, 100] = 131
    assert fingerprint(even).flat
    even[40:60, 50:90] = 90
    assert not fingerprint(even).flat
    assert not fingerprint(texture(6)).flat


def test_fingerprint_is_small() -> None:
    print_ = fingerprint(texture(7, (256, 256)))
    assert print_.bits.nbytes == HASH_BITS // 8
    copy = pickle.loads(pickle.dumps(print_))
    assert copy.pixel_sha256 == print_.pixel_sha256
    assert np.array_equal(copy.bits, print_.bits)
    assert len(pickle.dumps(print_)) < 500


def test_miniature_bounds_each_side_and_averages_what_a_pixel_covers() -> None:
    gray = texture(8, (512, 100))
    small = miniature(gray)
    assert (small.shape, small.dtype) == ((256, 100), np.uint8)
    means = gray.reshape(256, 2, 100).mean(axis=1)
    assert np.abs(small - means).max() <= 0.5
    assert np.array_equal(miniature(small), small)
    assert miniature(gray[:40]).shape == (40, 100)
    assert miniature(texture(9, (300, 700))).shape == (256, 256)
