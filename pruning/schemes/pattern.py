"""Pattern pruning with connectivity (scheme mapping, section 2.1.3 and figure 1 e; PatDNN).

A kept 3x3 kernel keeps four of its entries, in one of K shapes. The K shapes are the ones that are most frequent among
the kernels of the dense trained network and are frozen then; connectivity pruning drops whole kernels until the rate
is met, so that the smallest rate is 9 / 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import torch

from ..errors import PrunemapError
from ..network import LayerSpec
from .base import SCHEMES, Scheme

POSITIONS = 9
CENTRE = 4
ENTRIES = 4

PATTERNS: tuple[tuple[int, ...], ...] = tuple(
    shape for shape in combinations(range(POSITIONS), ENTRIES) if CENTRE in shape
)
"""The 56 candidates: four positions of the flattened 3x3 kernel, its centre among them."""


def pattern_library(weights: Sequence[torch.Tensor], count: int) -> tuple[tuple[int, ...], ...]:
    """The ``count`` patterns that occur most often in trained kernels, most frequent first; ties to the lower index.

    A kernel's natural pattern is its centre and the three largest of its other entries by magnitude, ties to the lower
    position.

    Args:
        weights: Weight tensors; those that are not (filters, channels, 3, 3) are passed over.
        count: Library size, 1 to 56.

    Raises:
        PrunemapError: When no weight has 3x3 kernels.
    """
    kernels = [w.detach().reshape(-1, POSITIONS) for w in weights if tuple(w.shape[2:]) == (3, 3)]
    if not kernels:
        raise PrunemapError(f"pattern:{count}: the network has no 3x3 convolution to take patterns from")
    frequency = sum(torch.bincount(_natural_patterns(k), minlength=1 << POSITIONS) for k in kernels)
    assert isinstance(frequency, torch.Tensor)
    often = sorted(PATTERNS, key=lambda shape: -int(frequency[sum(1 << place for place in shape)]))
    return tuple(often[:count])


def _natural_patterns(kernels: torch.Tensor) -> torch.Tensor:
    """Bits of each kernel's natural pattern, kernels being (count, 9); those without any weight are left out.

    Entries are ranked by comparing each pair of them, for all kernels at once: many times faster than sorting each.
    """
    entries = kernels.abs().T.contiguous()
    ranks = torch.zeros_like(entries, dtype=torch.uint8)
    for one, other in combinations([place for place in range(POSITIONS) if place != CENTRE], 2):
        ahead = entries[one] >= entries[other]
        ranks[other] += ahead
        ranks[one] += ~ahead
    codes = torch.full_like(ranks[0], 1 << CENTRE, dtype=torch.int64)
    for place in range(POSITIONS):
        if place != CENTRE:
            codes += (ranks[place] < ENTRIES - 1).long() << place
    return codes[entries.amax(dim=0) > 0]  # A removed kernel has no natural pattern.


@SCHEMES.register("pattern")
@dataclass(frozen=True)
class Pattern(Scheme):
    """One of K four-entry shapes per 3x3 kernel, and whole kernels dropped.

    Attributes:
        count: K, the size of the library.
        library: The K shapes, each four positions; None until ``bind`` has taken them from the dense weights.
    """

    count: int
    library: tuple[tuple[int, ...], ...] | None = None

    family = "pattern"
    form = f"pattern:K with K from 1 to {len(PATTERNS)}"
    example = "pattern:8"
    kinds = ("conv", "depthwise")
    misfit = "patterns are shapes of 3x3 kernels: use block-row or block-column for linear layers"
    smallest_rate = POSITIONS / ENTRIES

    def __post_init__(self) -> None:
        if self.count > len(PATTERNS):
            raise PrunemapError(f"scheme '{self.name}': there are {len(PATTERNS)} patterns; write {self.form}")

    def block(self, filters: int, channels: int) -> tuple[int, int]:
        """One kernel."""
        return 1, 1

    def cover(self, positions: int) -> torch.Tensor:
        """A row per library pattern."""
        if self.library is None:
            raise PrunemapError(f"{self.name}: call scheme.bind(dense_weights) first: it has no pattern library yet")
        rows = torch.zeros(len(self.library), positions, dtype=torch.bool)
        return rows.scatter_(1, torch.tensor(self.library), True)

    def units_per_block(self, positions: int) -> int:
        """One per pattern of the library."""
        return self.count

    def contenders(self, norms: torch.Tensor) -> torch.Tensor:
        """In each kernel the pattern that keeps the largest norm, ties to the more frequent one."""
        best = norms.argmax(dim=-1, keepdim=True)
        return torch.full_like(norms, -1.0).scatter_(-1, best, norms.gather(-1, best))

    def contenders_per_block(self, positions: int) -> int:
        """A kernel keeps one pattern."""
        return 1

    def signature(self, shape: tuple[int, ...], groups: int) -> tuple[object, ...]:
        """Like no other scheme."""
        return (self.name, self.library)

    def fits(self, layer: LayerSpec) -> str | None:
        """3x3 kernels only."""
        reason = super().fits(layer)
        if reason is None and layer.kernel != (3, 3):
            return f"patterns are shapes of 3x3 kernels, this one is {layer.kernel[0]}x{layer.kernel[1]}"
        return reason

    def bind(self, dense_weights: Sequence[torch.Tensor]) -> Pattern:
        """With the library of all 3x3 convolutions among ``dense_weights``; a bound scheme stays as it is."""
        if self.library is not None:
            return self
        return replace(self, library=pattern_library(dense_weights, self.count))
