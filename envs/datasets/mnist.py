"""MNIST, and whatever else comes in its four IDX files (Fashion-MNIST, KMNIST)."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...pruning.errors import PrunemapError
from ..options import Positive
from . import DATASETS, DatasetEntry
from .files import existing_file, existing_folder
from .splits import Dataset, Labels, normalised, stratified

_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_UNSIGNED_BYTE = 0x08
# Deflate turns 258 bytes into no less than 2 bits: what a compressed file can hold at most, per byte.
_DEFLATE_LIMIT = 1032


def mnist(folder: str | Path, train: Positive | None = None, validation: Positive = 5000, seed: int = 0) -> Dataset:
    """MNIST with its official test set.

    Args:
        folder: Holds the four IDX files, as they are or gzipped (``.gz``).
        train: Training images used; by default all that validation leaves.
        validation: Images split off from the training files.
        seed: Seed of the split.
    """
    directory = existing_folder("mnist", folder, _FILES)
    paths = [existing_file("mnist", directory, name, f"{name}.gz") for name in _FILES]
    images, labels = _pair(paths[0], paths[1])
    test_images, test_labels = _pair(paths[2], paths[3])
    sizes = (len(labels) - validation if train is None else train, validation)
    parts = [(images[index], labels[index]) for index in stratified(labels, sizes, seed, "dataset mnist")]
    return normalised([*parts, (test_images, test_labels)], classes=int(labels.max()) + 1)


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read one IDX file of unsigned bytes, gzipped or not.

    The header is checked against the file's size before anything of the size it states is allocated.

    Raises:
        PrunemapError: When the file is no IDX file of unsigned bytes, or holds more or less than its header says.
    """
    gzipped = path.suffix == ".gz"
    most = path.stat().st_size * (_DEFLATE_LIMIT if gzipped else 1)
    try:
        with gzip.open(path) if gzipped else path.open("rb") as file:
            magic = file.read(4)
            if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] != _UNSIGNED_BYTE:
                raise PrunemapError(
                    f"{path}: not an IDX file of unsigned bytes (it begins with {magic.hex() or 'nothing'})"
                )
            header = file.read(4 * magic[3])
            shape = tuple(int(size) for size in np.frombuffer(header[: len(header) // 4 * 4], ">u4"))
            size = math.prod(shape)
            body = file.read(size + 1) if size <= most else b""
    except (OSError, EOFError, zlib.error) as error:
        raise PrunemapError(f"{path}: cannot be read ({error})") from None
    if len(shape) != magic[3] or len(body) != size:
        raise PrunemapError(f"{path}: the header says {' x '.join(map(str, shape))} bytes, which is not what follows")
    return np.frombuffer(body, np.uint8).reshape(shape)


def _pair(image_path: Path, label_path: Path) -> tuple[NDArray[np.uint8], Labels]:
    """Images (N, 1, H, W) and labels (N,) of two files that belong together."""
    images, labels = read_idx(image_path), read_idx(label_path)
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels) or not len(labels):
        raise PrunemapError(
            f"{image_path}: images {images.shape} and labels {labels.shape} do not match; expected (N, H, W) and (N,)"
        )
    return images[:, None], labels.astype(np.int64)


DATASETS.register("mnist")(DatasetEntry(mnist, f"MNIST from a folder with its IDX files {', '.join(_FILES)} (or .gz)"))
