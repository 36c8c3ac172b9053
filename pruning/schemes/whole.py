"""Schemes of whole kernels: dense, and the removal of filters or input channels (ADMM-NN-S, figure 1 b)."""

from __future__ import annotations

from dataclasses import dataclass

from .base import SCHEMES, Scheme


@SCHEMES.register("dense")
@dataclass(frozen=True)
class Dense(Scheme):
    """Nothing is pruned: the layer is one unit, and one unit is always kept."""

    family = "dense"
    form = "dense"
    example = "dense"
    kinds = ("conv", "depthwise", "linear")
    whole_kernel = True

    def block(self, filters: int, channels: int) -> tuple[int, int]:
        """All of the group."""
        return filters, channels

    @property
    def pool(self) -> tuple[int, int]:
        """Each convolution group by itself, so that every one is kept."""
        return 1, 1


@SCHEMES.register("filter")
@dataclass(frozen=True)
class Filter(Scheme):
    """Whole filters are removed; what that makes dead goes with them (ADMM-NN-S, section III-A; CompactNet)."""

    family = "filter"
    form = "filter"
    example = "filter"
    misfit = "a depthwise layer's filters are the channels of the layer before it: choose filter there"
    removes = "filters"
    whole_kernel = True

    def block(self, filters: int, channels: int) -> tuple[int, int]:
        """One filter, all channels."""
        return 1, channels


@SCHEMES.register("channel")
@dataclass(frozen=True)
class Channel(Scheme):
    """Whole input channels are removed (ADMM-NN-S, section III-A)."""

    family = "channel"
    form = "channel"
    example = "channel"
    misfit = "a depthwise layer's input channels are the channels of the layer before it: choose filter there"
    removes = "channels"
    whole_kernel = True

    def block(self, filters: int, channels: int) -> tuple[int, int]:
        """All filters of the group, one channel."""
        return filters, 1
