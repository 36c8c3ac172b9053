"""CIFAR-10 and CIFAR-100 in their binary versions: records of label bytes and 3x32x32 pixel bytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...pruning.errors import PrunemapError
from ..options import Positive
from . import DATASETS, DatasetEntry
from .files import existing_file, existing_folder
from .splits import Dataset, Labels, normalised, stratified

_SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class _Version:
    """Where one of the two keeps its images; the last label byte of a record is the class that is used."""

    name: str
    classes: int
    label_bytes: int
    train: tuple[str, ...]
    test: str
    archive: str

    def load(
        self, folder: str | Path, train: Positive | None = None, validation: Positive = 5000, seed: int = 0
    ) -> Dataset:
        """CIFAR with its official test set.

        Args:
            folder: Holds the .bin files.
            train: Training images used; by default all that validation leaves.
            validation: Images split off from the training files.
            seed: Seed of the split.
        """
        directory = existing_folder(self.name, folder, (*self.train, self.test))
        self._refuse_pickles(directory)
        batches = [self._read(existing_file(self.name, directory, name)) for name in self.train]
        images = np.concatenate([pixels for pixels, _ in batches])
        labels = np.concatenate([answers for _, answers in batches])
        sizes = (len(labels) - validation if train is None else train, validation)
        parts = [(images[index], labels[index]) for index in stratified(labels, sizes, seed, f"dataset {self.name}")]
        return normalised([*parts, self._read(existing_file(self.name, directory, self.test))], self.classes)

    def _refuse_pickles(self, directory: Path) -> None:
        pickles = [name for name in map(_stem, (*self.train, self.test)) if (directory / name).is_file()]
        if pickles and not (directory / self.test).is_file():
            raise PrunemapError(
                f"dataset {self.name}, option 'folder': {directory / pickles[0]} is of the Python version, whose "
                f"pickles can run any code and are refused; use the binary version ({self.archive})"
            )

    def _read(self, path: Path) -> tuple[NDArray[np.uint8], Labels]:
        """Images (N, 3, 32, 32) and labels (N,) of one file."""
        record = self.label_bytes + _PIXELS
        size = path.stat().st_size
        if size == 0 or size % record:
            raise PrunemapError(
                f"{path}: {size} bytes are not records of {record}; is it {self.name}'s binary version?"
            )
        records = np.fromfile(path, np.uint8).reshape(-1, record)
        labels = records[:, self.label_bytes - 1].astype(np.int64)
        if labels.max() >= self.classes:
            raise PrunemapError(f"{path}: holds class {labels.max()}; {self.name} has {self.classes}")
        return records[:, self.label_bytes :].reshape(-1, *_SHAPE), labels


def _stem(name: str) -> str:
    return name.removesuffix(".bin")


_CIFAR10 = _Version(
    name="cifar10",
    classes=10,
    label_bytes=1,
    train=tuple(f"data_batch_{index}.bin" for index in range(1, 6)),
    test="test_batch.bin",
    archive="cifar-10-binary.tar.gz",
)
_CIFAR100 = _Version(
    name="cifar100",
    classes=100,
    label_bytes=2,
    train=("train.bin",),
    test="test.bin",
    archive="cifar-100-binary.tar.gz",
)

for _version in (_CIFAR10, _CIFAR100):
    _files = f"{_version.train[0]}, ..., {_version.test}" if len(_version.train) > 1 else "train.bin, test.bin"
    DATASETS.register(_version.name)(
        DatasetEntry(_version.load, f"CIFAR-{_version.classes} from a folder with its binary version: {_files}")
    )
