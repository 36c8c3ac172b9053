"""A way to compute one convolution."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Family = Literal["pixels", "channels", "rows", "winograd"]
FINE = 4
"""Filters: a run of fewer takes about as long. Twice as many with tiles of one vector, which wait for their sums."""


@dataclass(frozen=True, order=True)
class Candidate:
    """One way to compute a convolution.

    Attributes:
        family: What lies in the lanes: ``pixels`` of planes walked flat, output ``channels``, or pixels of ``rows``;
            ``winograd``: pixels of a band of transformed planes, of fewer multiplications (``winograd.py``).
        lanes: Floats per vector.
        size: Filters that share a list.
        vectors: Vectors per tile: of pixels, or of output channels.
        rows: Output rows per tile (``channels``); rows of cells per band (``winograd``).
        columns: Output columns per tile (``channels``), or per cell (``winograd``).
        joined: Rows of the output, with nothing between them, that are walked as one (``channels``).
        rest: Pixels beyond the last vector of a plane, computed with filters in the lanes (``pixels``, ``winograd``);
            0: their vector is computed like the others.
        runs_outer: Whether all tiles of one run come before the next run, or all runs of one tile before the next tile.
        reordered: Whether filters with equal zeros were put together, kinds that fill half a run in runs of their own.
        dense: Whether every position is computed, as if nothing were pruned.
        jammed: Whether lists are sorted by the filters that read an entry, so that no zeros are stored (``pixels``).
        panel: Whether what a tile reads is copied together first, as matrix products do with their operands (Goto and
            van de Geijn, ACM TOMS 2008); all runs of a tile come before the next tile then (``pixels``).
        passes: Passes over a tile, each with so many input channels that the first-level cache holds what all runs read
            of them; the sums wait in between (``pixels``).
    """

    family: Family
    lanes: int
    size: int
    vectors: int
    rows: int = 1
    columns: int = 1
    joined: int = 1
    rest: int = 0
    runs_outer: bool = True
    reordered: bool = False
    dense: bool = False
    jammed: bool = False
    panel: bool = False
    passes: int = 1

    @property
    def tile_floats(self) -> int:
        """Pixels of a tile, with pixels in the lanes: from one row of a panel to the next."""
        return self.vectors * self.lanes

    @property
    def run_lanes(self) -> int:
        """Lanes of the vectors that a run's filters fill; 0 where pixels lie in the lanes."""
        return self.lanes if self.family == "channels" else 0

    @property
    def together(self) -> int:
        """Filters that are computed together: a vector of them; with pixels in the lanes rests are cut fine."""
        return self.run_lanes or min(self.size, FINE if self.vectors > 1 else 2 * FINE)

    @property
    def products(self) -> Candidate:
        """How the products of Winograd's filtering are summed up."""
        return replace(self, family="pixels", rows=1, columns=1, dense=False)

    def __str__(self) -> str:
        if self.family != "channels":
            tile = f"{self.size}x{self.vectors}v{self.lanes}" + (f"+{self.rest}" if self.rest else "")
            tile += f" bands of {self.rows} by {self.columns}" if self.family == "winograd" else ""
        else:
            tile = f"{self.size}c{self.lanes}x{self.rows}x{self.columns}" + (
                f"/{self.joined}" if self.joined > 1 else ""
            )
        order = "runs>tiles" if self.runs_outer else "tiles>runs"
        flags = [name for name in ("reordered", "jammed", "panel", "dense") if getattr(self, name)]
        passes = [f"in {self.passes}"] if self.passes > 1 else []
        return " ".join([self.family, tile, order, *flags, *passes])
