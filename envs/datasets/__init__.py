"""The data that prunemap knows by name: three splits of images in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...pruning.registry import Registry
from ..options import call_with_options
from .splits import Dataset, Split


@dataclass(frozen=True)
class DatasetEntry:
    """One registered dataset.

    Attributes:
        load: Returns the dataset; its keyword parameters are the options.
        description: One line for listings, which names the files expected where there are any.
    """

    load: Callable[..., Dataset]
    description: str


DATASETS: Registry[DatasetEntry] = Registry("dataset", __name__)


def load_dataset(name: str, **options: Any) -> Dataset:
    """Load or generate a dataset, normalised and split; nothing is downloaded.

    Args:
        name: A name of ``DATASETS``.
        **options: The dataset's own options, for instance ``resize``, ``folder``, ``seed``.

    Raises:
        PrunemapError: For an unknown name or option, an invalid value, and files that are missing or malformed.
    """
    return call_with_options(f"dataset {name}", DATASETS[name].load, options)


__all__ = ["DATASETS", "Dataset", "DatasetEntry", "Split", "load_dataset"]
