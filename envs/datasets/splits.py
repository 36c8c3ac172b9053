"""A dataset in memory: deterministic stratified splits, normalised with the training split's statistics."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from ...pruning.errors import PrunemapError

Images = NDArray[np.uint8] | NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Split:
    """Images and their classes.

    Attributes:
        images: float32, (N, channels, height, width), contiguous.
        labels: int64, (N,), from 0.
    """

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: str) -> Split:
        """The same split on ``device``; itself when it is there already."""
        if self.images.device == torch.device(device):
            return self
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three disjoint splits: train on ``train``, reward from ``validation``, report ``test``."""

    train: Split
    validation: Split
    test: Split
    classes: int

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one image."""
        channels, height, width = self.train.images.shape[1:]
        return (channels, height, width)

    @cached_property
    def digest(self) -> str:
        """Hexadecimal SHA-256 of all images and labels: what a cached training result depends on."""
        summary = hashlib.sha256(str(self.classes).encode())
        for split in (self.train, self.validation, self.test):
            summary.update(str(tuple(split.images.shape)).encode())
            summary.update(split.images.numpy().data)
            summary.update(split.labels.numpy().data)
        return summary.hexdigest()


def stratified(labels: Labels, sizes: Sequence[int], seed: int, what: str) -> list[NDArray[np.int64]]:
    """Draw disjoint samples in which every class has its share.

    Each class is shuffled and spread evenly over [0, 1]; all images are then put in the order of these positions and
    cut into pieces: a piece has exactly the size asked, and each class its share of it, give or take one image.

    Args:
        labels: Class of every image.
        sizes: Number of images of each sample.
        seed: Seed of the shuffling.
        what: Whose sizes they are, for the message.

    Returns:
        Indices of each sample, in a shuffled order.

    Raises:
        PrunemapError: When more images are asked for than there are.
    """
    if sum(sizes) > len(labels) or min(sizes) < 1:
        asked = ", ".join(map(str, sizes))
        raise PrunemapError(f"{what}: splits of {asked} images; each needs 1 at least, all together have {len(labels)}")
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    counts = np.bincount(labels)
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    position = (np.arange(len(labels)) - starts + 0.5) / np.repeat(counts, counts)
    order = by_class[np.lexsort((rng.random(len(labels)), position))]
    ends = np.cumsum(sizes)
    return [rng.permutation(order[end - size : end]) for size, end in zip(sizes, ends, strict=True)]


def normalised(parts: Sequence[tuple[Images, Labels]], classes: int) -> Dataset:
    """Make a dataset of (train, validation, test) images (N, C, H, W) and labels.

    Every channel gets mean 0 and standard deviation 1 on the training images; the other splits get the same shift and
    scale. A channel that is constant is only shifted.
    """
    train = parts[0][0]
    mean = train.mean(axis=(0, 2, 3), dtype=np.float64)
    deviation = train.std(axis=(0, 2, 3), dtype=np.float64)
    deviation[deviation == 0] = 1.0
    scale = (1.0 / deviation).astype(np.float32)[:, None, None]
    shift = (-mean / deviation).astype(np.float32)[:, None, None]
    splits = []
    for images, labels in parts:
        values = np.multiply(images, scale, dtype=np.float32)
        values += shift
        splits.append(Split(torch.from_numpy(np.ascontiguousarray(values)), torch.from_numpy(labels.astype(np.int64))))
    return Dataset(splits[0], splits[1], splits[2], classes)
