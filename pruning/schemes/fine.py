"""Schemes whose units sit at one kernel position and compete over the whole layer."""

from __future__ import annotations

from dataclasses import dataclass

from .base import SCHEMES, Scheme


@SCHEMES.register("unstructured")
@dataclass(frozen=True)
class Unstructured(Scheme):
    """Every weight by itself: 1 filter x 1 channel at one position."""

    family = "unstructured"
    form = "unstructured"
    example = "unstructured"
    kinds = ("conv", "depthwise", "linear")

    def block(self, filters: int, channels: int) -> tuple[int, int]:
        """One weight."""
        return 1, 1


@SCHEMES.register("column")
@dataclass(frozen=True)
class Column(Scheme):
    """All filters x 1 channel at one position: a column of the unrolled matrix (ADMM-NN-S, filter-shape pruning)."""

    family = "column"
    form = "column"
    example = "column"

    def block(self, filters: int, channels: int) -> tuple[int, int]:
        """All filters of the group, one channel."""
        return filters, 1


@SCHEMES.register("simd")
@dataclass(frozen=True)
class Simd(Scheme):
    """G consecutive filters x 1 channel at one position, G being vector lanes (ALCS, section III-B)."""

    filters: int

    family = "simd"
    form = "simd:G"
    example = "simd:8"

    def block(self, filters: int, channels: int) -> tuple[int, int]:
        """G filters, one channel."""
        return self.filters, 1

    @classmethod
    def with_block(cls, filters: int, channels: int) -> Simd | None:
        """simd:filters, when it is one channel wide."""
        return cls(filters) if channels == 1 else None


@SCHEMES.register("block-punched")
@dataclass(frozen=True)
class BlockPunched(Scheme):
    """The same position in all kernels of a block of P filters x Q channels (scheme mapping, section 4.1.2)."""

    filters: int
    channels: int

    family = "block-punched"
    form = "block-punched:PxQ"
    example = "block-punched:8x4"
    kinds = ("conv",)
    misfit = (
        "blocks are punched through the kernels of several filters and channels: "
        "use block-row or block-column for linear layers, unstructured for depthwise ones"
    )

    def block(self, filters: int, channels: int) -> tuple[int, int]:
        """P filters, Q channels."""
        return self.filters, self.channels

    @classmethod
    def with_block(cls, filters: int, channels: int) -> BlockPunched:
        """block-punched:filtersxchannels."""
        return cls(filters, channels)
