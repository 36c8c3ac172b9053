"""Seeded sections of code that leave every global random state as they found it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(seed: int, device: str = "cpu") -> Iterator[None]:
    """Run the body with Python's, NumPy's and torch's global generators at ``seed``; restore them afterwards.

    Library code of ours draws from its own generators. This is for what draws from the global ones: torch's weight
    initialisation and dropout, and the constructors of a user's network.

    Args:
        seed: Any non-negative integer; NumPy takes its lowest 32 bits.
        device: A CUDA device's generator is seeded and restored too.
    """
    accelerators = [] if device == "cpu" else [torch.device(device)]
    python_state = random.getstate()
    numpy_state = np.random.get_state()  # noqa: NPY002 - the global generator itself is what is protected here
    with torch.random.fork_rng(devices=accelerators):
        # torch.manual_seed would seed, and leave changed, the devices that are not forked here.
        torch.default_generator.manual_seed(seed)
        if accelerators:
            torch.cuda.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002
