"""The primitives that every scheme is pruned with: norms of units, which units are kept, and their mask.

One-shot pruning, ADMM's projection and ALCS's global one all use these. Units of a layer are laid out as a tensor
(convolution groups, block rows, block columns, units per block): a block is ``p`` filters x ``q`` input channels of
one group, and holds one unit per kernel position, one for the whole kernel, or one per pattern.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
import torch.nn.functional as F

from ..errors import PrunemapError
from .base import Scheme

Shape = tuple[int, ...]


def unit_norms(weight: torch.Tensor, scheme: Scheme, groups: int = 1) -> torch.Tensor:
    """L2 norm of every unit.

    Args:
        weight: (filters, channels / groups, kernel height, kernel width), or (filters, inputs) of a linear layer.
        scheme: What a unit is.
        groups: Convolution groups; no unit crosses them.

    Returns:
        float64 (groups, block rows, block columns, units per block). Units at a border may hold fewer weights.
    """
    filters, channels, positions = _extent(tuple(weight.shape), groups)
    rows, columns = _block(scheme, filters, channels)
    squares = weight.detach().to(torch.float64, copy=True).square_().reshape(groups, filters, channels, positions)
    sums = _sum_runs(_sum_runs(squares, 1, rows), 2, columns)
    cover = scheme.cover(positions)
    if not _one_position_each(cover):
        sums = sums @ cover.double().T.to(sums.device)
    return sums.sqrt_()


def select_units(norms: torch.Tensor, scheme: Scheme, rate: float) -> torch.Tensor:
    """The units that are kept: those with the largest norm, ties to the lower index.

    Of n units that compete max(1, floor(n / rate + 0.5)) are kept; they compete over the whole layer, or inside each
    block for schemes with a ``pool``.

    Args:
        norms: As ``unit_norms`` gives them.
        scheme: What a unit is.
        rate: All weights / weights kept.

    Returns:
        Boolean tensor like ``norms``.

    Raises:
        PrunemapError: When a norm is not finite.
    """
    if not math.isfinite(norms.max()):
        raise PrunemapError(f"{scheme.name}: the weights to prune hold values that are not finite")
    entries = scheme.contenders(norms)
    rows, columns, units = norms.shape[1:]
    if scheme.pool is None:
        return _largest(entries.reshape(1, -1), scheme, rate).reshape(norms.shape)
    high, wide = min(scheme.pool[0], rows), min(scheme.pool[1], columns)
    padded = F.pad(entries, (0, 0, 0, -columns % wide, 0, -rows % high), value=-1.0)
    tiles = padded.reshape(len(norms), -1, high, padded.shape[2] // wide, wide, units).permute(0, 1, 3, 2, 4, 5)
    kept = _largest(tiles.reshape(-1, high * wide * units), scheme, rate).reshape(tiles.shape)
    return kept.permute(0, 1, 3, 2, 4, 5).reshape(padded.shape)[:, :rows, :columns]


def mask_from_units(kept: torch.Tensor, scheme: Scheme, shape: Shape, groups: int = 1) -> torch.Tensor:
    """The weights that kept units hold.

    Args:
        kept: Boolean (groups, block rows, block columns, units per block).
        scheme: What a unit is.
        shape: The weight's shape, two or four numbers.
        groups: Convolution groups.

    Returns:
        Boolean tensor of ``shape``.
    """
    filters, channels, positions = _extent(shape, groups)
    rows, columns = _block(scheme, filters, channels)
    cover = scheme.cover(positions)
    mask = kept if _one_position_each(cover) else (kept.float() @ cover.float().to(kept.device)) > 0
    mask = mask.repeat_interleave(rows, 1)[:, :filters].repeat_interleave(columns, 2)[:, :, :channels]
    return mask.reshape(shape)


@dataclass(frozen=True)
class Pool:
    """Units that compete with one another, in ``times`` pools alike.

    Attributes:
        times: How many such pools the layer has.
        sizes: (weights that a kept unit keeps, how many such units), largest first; border units may be smaller.
    """

    times: int
    sizes: tuple[tuple[int, int], ...]

    @cached_property
    def units(self) -> int:
        """Units of one pool."""
        return sum(count for _, count in self.sizes)

    def most_weights(self, kept: int) -> int:
        """Weights of the ``kept`` largest units of one pool."""
        weights = 0
        for size, count in self.sizes:
            weights += size * min(kept, count)
            kept -= min(kept, count)
        return weights


@lru_cache(maxsize=1 << 16)
def pools(scheme: Scheme, shape: Shape, groups: int = 1) -> tuple[Pool, ...]:
    """The pools of a layer, sizes that occur more than once counted once: the whole layer, or every block of it."""
    filters, channels, positions = _extent(shape, groups)
    rows, columns = _block(scheme, filters, channels)
    high, wide = filters, channels
    merged = groups  # Without a pool of its own a scheme's units compete across convolution groups too.
    if scheme.pool is not None:
        high, wide, merged = scheme.pool[0] * rows, scheme.pool[1] * columns, 1
    per_block = scheme.contenders_per_block(positions)
    share = positions / per_block / scheme.smallest_rate
    found = []
    for down, height in _parts(filters, high):
        for across, width in _parts(channels, wide):
            sizes = [
                (round(tall * broad * share), many * more * merged * per_block)
                for many, tall in _parts(height, rows)
                for more, broad in _parts(width, columns)
            ]
            found.append(Pool(groups // merged * down * across, tuple(sorted(sizes, reverse=True))))
    return tuple(found)


def kept_units(scheme: Scheme, rate: float, shape: Shape, groups: int = 1) -> int:
    """How many units of a layer of ``shape`` are kept."""
    return sum(pool.times * scheme.kept(pool.units, rate) for pool in pools(scheme, shape, groups))


@lru_cache(maxsize=1 << 16)
def kept_weights(scheme: Scheme, rate: float, shape: Shape, groups: int = 1) -> int:
    """How many weights of a layer of ``shape`` are kept at most, without looking at any weight.

    Exact where the units that compete are equally large. Smaller ones at borders are taken to go first, as their norms
    mostly are smaller too.
    """
    return sum(pool.times * pool.most_weights(scheme.kept(pool.units, rate)) for pool in pools(scheme, shape, groups))


def _parts(length: int, part: int) -> Iterator[tuple[int, int]]:
    """Yield (how many, size) of the full parts of ``length`` and of the rest."""
    if length >= part:
        yield length // part, part
    if length % part:
        yield 1, length % part


def _extent(shape: Shape, groups: int) -> tuple[int, int, int]:
    """Filters and channels of one convolution group, and kernel positions."""
    return shape[0] // groups, shape[1], math.prod(shape[2:])


def _block(scheme: Scheme, filters: int, channels: int) -> tuple[int, int]:
    rows, columns = scheme.block(filters, channels)
    return min(rows, filters), min(columns, channels)


def _one_position_each(cover: torch.Tensor) -> bool:
    """Whether the units of a block are simply its kernel positions, so that nothing need be summed over them."""
    return torch.equal(cover, torch.eye(cover.shape[1]).bool())


def _sum_runs(values: torch.Tensor, axis: int, run: int) -> torch.Tensor:
    """Sums over consecutive runs along ``axis``; the last run may be shorter."""
    if run == 1:
        return values
    missing = [0] * (2 * (values.dim() - axis))
    missing[-1] = -values.shape[axis] % run
    padded = F.pad(values, missing) if missing[-1] else values
    return padded.reshape(*values.shape[:axis], -1, run, *values.shape[axis + 1 :]).sum(axis + 1)


def _largest(pools: torch.Tensor, scheme: Scheme, rate: float) -> torch.Tensor:
    """Per row the ``scheme.kept`` largest entries, ties to the lower index; negative entries do not compete.

    A threshold by selection and a running count of its ties, in numpy: many times faster than a stable sort.
    """
    entries = pools.detach().cpu().numpy()
    kept = np.empty(entries.shape, dtype=np.bool_)
    sizes = (entries >= 0).sum(axis=1)
    for size in set(sizes.tolist()):
        alike = slice(None) if len(entries) == 1 else sizes == size
        rows, count = entries[alike], scheme.kept(size, rate)
        compete = rows if size == rows.shape[1] else rows[rows >= 0].reshape(-1, size)
        threshold = np.partition(compete, size - count, axis=1)[:, size - count, None]
        chosen = rows >= threshold
        surplus = chosen.sum(axis=1, keepdims=True) - count
        if surplus.any():  # Of the ties at the threshold, the last ones go.
            ties = rows == threshold
            chosen &= ~(ties & (ties[:, ::-1].cumsum(axis=1)[:, ::-1] <= surplus))
        kept[alike] = chosen
    return torch.from_numpy(kept).to(pools.device)
