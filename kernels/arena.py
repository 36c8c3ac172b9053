"""Memory: where the planes of all values lie in one arena, those needed at the same time apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .layout import WIDEST

SHARED_FROM = 48 * 1024  # floats: below this all values get memory of their own, so that no margin is ever overwritten


@dataclass(frozen=True)
class Placement:
    """Where a piece of memory lies, and whether others use the same memory at other times."""

    start: int
    shared: bool


def place(sizes: Sequence[int], spans: Sequence[tuple[int, int]]) -> tuple[list[Placement], int]:
    """Place pieces of memory in an arena so that pieces needed at the same time do not overlap.

    Args:
        sizes: Floats of each piece, multiples of a cache line.
        spans: First and last step that need it.

    Returns:
        The placements, and the arena's size. A line of slack lies at both ends: vectors may be read past the last row.
    """
    if sum(sizes) <= SHARED_FROM:
        starts = [WIDEST + sum(sizes[:i]) for i in range(len(sizes))]
        return [Placement(start, False) for start in starts], sum(sizes) + 2 * WIDEST
    placed: dict[int, int] = {}
    for index in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        busy = sorted(
            (placed[other], placed[other] + sizes[other]) for other in placed if _meet(spans[other], spans[index])
        )
        at = WIDEST
        for begin, end in busy:
            if begin - at >= sizes[index]:
                break
            at = max(at, end)
        placed[index] = at
    ranges = [(placed[i], placed[i] + size) for i, size in enumerate(sizes)]
    shared = [any(i != j and _meet((a, b - 1), (c, d - 1)) for j, (c, d) in enumerate(ranges))
              for i, (a, b) in enumerate(ranges)]  # fmt: skip
    placements = [Placement(start, flag) for (start, _), flag in zip(ranges, shared, strict=True)]
    return placements, max(end for _, end in ranges) + WIDEST


def _meet(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return a[0] <= b[1] and b[0] <= a[1]
