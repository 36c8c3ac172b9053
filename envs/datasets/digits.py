"""scikit-learn's bundled digits: 1,797 grey 8x8 images of ten classes."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch.nn import functional

from ..options import Positive
from . import DATASETS, DatasetEntry
from .splits import Dataset, normalised, stratified


def digits(resize: Positive = 8, validation: Positive = 600, test: Positive = 497, seed: int = 0) -> Dataset:
    """The digits, resized bilinearly to ``resize`` x ``resize``.

    The defaults leave 700 training images: the reward of a search comes from the validation images, whose number bounds
    how finely it can tell two mappings apart.
    """
    bunch = load_digits()
    labels = bunch.target.astype(np.int64)
    images = torch.from_numpy(bunch.images.astype(np.float32))[:, None]
    if resize != images.shape[-1]:
        images = functional.interpolate(images, (resize, resize), mode="bilinear", align_corners=False)
    values = images.numpy()
    sizes = (len(labels) - validation - test, validation, test)
    parts = [(values[index], labels[index]) for index in stratified(labels, sizes, seed, "dataset digits")]
    return normalised(parts, classes=10)


DATASETS.register("digits")(DatasetEntry(digits, "scikit-learn's bundled digits, 1,797 grey 8x8 images"))
