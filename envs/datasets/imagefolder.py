"""Images in one folder per class."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from pydantic import Field

from ...pruning.errors import PrunemapError
from ..options import Positive
from . import DATASETS, DatasetEntry
from .files import existing_folder
from .splits import Dataset, normalised, stratified

_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_LAYOUT = "a sub-folder of images per class"

Share = Annotated[float, Field(gt=0.0, lt=1.0)]


def imagefolder(
    folder: str | Path, size: Positive = 224, validation: Share = 0.2, test: Share = 0.2, seed: int = 0
) -> Dataset:
    """Pictures as RGB, scaled bilinearly and cropped in the centre to ``size`` x ``size``.

    Args:
        folder: One sub-folder per class; classes are numbered in the order of the folders' names.
        size: Height and width of the images.
        validation: Share of all images.
        test: Share of all images.
        seed: Seed of the splits.
    """
    directory = existing_folder("imagefolder", folder, (_LAYOUT,))
    classes = sorted(path for path in directory.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(classes) < 2:
        raise PrunemapError(
            f"dataset imagefolder, option 'folder': {directory} has {len(classes)} sub-folders; "
            f"expected {_LAYOUT}, at least 2"
        )
    files = [(path, label) for label, name in enumerate(classes) for path in _pictures(name)]
    labels = np.array([label for _, label in files], np.int64)
    images = np.empty((len(files), 3, size, size), np.uint8)
    for index, (path, _) in enumerate(files):
        images[index] = _read(path, size)
    held = (round(len(files) * validation), round(len(files) * test))
    samples = stratified(labels, (len(files) - sum(held), *held), seed, "dataset imagefolder")
    return normalised([(images[index], labels[index]) for index in samples], len(classes))


def _pictures(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES and path.is_file())
    if not found:
        raise PrunemapError(f"dataset imagefolder: {folder} holds no image ({', '.join(sorted(_SUFFIXES))})")
    return found


def _read(path: Path, size: int) -> NDArray[np.uint8]:
    """One picture as (3, size, size); a file that claims absurdly many pixels is not decoded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                upright = ImageOps.exif_transpose(image).convert("RGB")
        fitted = ImageOps.fit(upright, (size, size), Image.Resampling.BILINEAR)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise PrunemapError(f"dataset imagefolder: {path} cannot be read as an image ({error})") from None
    return np.asarray(fitted).transpose(2, 0, 1)


DATASETS.register("imagefolder")(DatasetEntry(imagefolder, f"your own images: a folder with {_LAYOUT}"))
