"""What holds for all tests."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Layers that a test makes without a generator have the same weights every time."""
    torch.manual_seed(0)
