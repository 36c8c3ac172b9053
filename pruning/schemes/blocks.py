"""Block-based schemes of linear layers: rows or columns pruned inside each block (scheme mapping, section 4.1.1).

Every PxQ block of the weight matrix keeps the same fraction of its rows (columns). Choosing over the whole layer
instead would make block-column:PxQ equal to simd:P.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .base import SCHEMES, Scheme


@dataclass(frozen=True)
class _Blocked(Scheme):
    """What both have in common: blocks of P filters x Q inputs inside which units compete."""

    filters: int
    channels: int

    kinds = ("linear",)
    misfit = "it prunes the weight matrix of a linear layer: use block-punched for convolutions"

    def clipped(self, filters: int, channels: int) -> Scheme:
        """Blocks no larger than the matrix."""
        return replace(self, filters=min(self.filters, filters), channels=min(self.channels, channels))


@SCHEMES.register("block-row")
@dataclass(frozen=True)
class BlockRow(_Blocked):
    """Rows of each block are removed: units of 1 filter x Q inputs."""

    family = "block-row"
    form = "block-row:PxQ"
    example = "block-row:8x16"

    def block(self, filters: int, channels: int) -> tuple[int, int]:
        """One filter, Q inputs."""
        return 1, self.channels

    @property
    def pool(self) -> tuple[int, int]:
        """The P rows of a block."""
        return self.filters, 1


@SCHEMES.register("block-column")
@dataclass(frozen=True)
class BlockColumn(_Blocked):
    """Columns of each block are removed: units of P filters x 1 input."""

    family = "block-column"
    form = "block-column:PxQ"
    example = "block-column:8x16"

    def block(self, filters: int, channels: int) -> tuple[int, int]:
        """P filters, one input."""
        return self.filters, 1

    @property
    def pool(self) -> tuple[int, int]:
        """The Q columns of a block."""
        return 1, self.channels
