"""What a scheme is: the unit of weights that is kept or removed as one.

A unit is ``p`` filters x ``q`` input channels x some kernel positions. Everything that pruning does with a scheme
follows from that (``units.py``), so that a family only states its unit, where its units compete and which layers it
fits.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from functools import cache, cached_property
from typing import ClassVar, Literal

import torch

from ..errors import PrunemapError
from ..network import LayerKind, LayerSpec
from ..registry import Registry

Removes = Literal["weights", "filters", "channels"]


@dataclass(frozen=True)
class Scheme(ABC):
    """Which weights of a layer become zero together: frozen and hashable; its integer fields are its parameters.

    Attributes:
        family: The name it is registered under.
        form: How it is written, for messages: ``"block-punched:PxQ"``.
        example: One valid way to write it.
        kinds: Layer kinds that it fits.
        misfit: Why it does not fit the other kinds, in words.
        removes: ``filters`` and ``channels`` remove whole filters and input channels, before any other scheme of the
            network counts its units; ``weights`` is everything else.
        whole_kernel: Whether a unit spans the kernel's positions or sits at one.
        smallest_rate: The rate at which every unit is kept; above 1 where a kept unit has zeros in itself.
    """

    family: ClassVar[str]
    form: ClassVar[str]
    example: ClassVar[str]
    kinds: ClassVar[tuple[LayerKind, ...]] = ("conv", "linear")
    misfit: ClassVar[str] = (
        "blocks never cross convolution groups, so that on a depthwise layer it would be unstructured: use unstructured"
    )
    removes: ClassVar[Removes] = "weights"
    whole_kernel: ClassVar[bool] = False
    smallest_rate: ClassVar[float] = 1.0

    @property
    def parameters(self) -> tuple[int, ...]:
        """The numbers after the colon of its name."""
        return tuple(getattr(self, name) for name in self.parameter_names())

    @classmethod
    def parameter_names(cls) -> tuple[str, ...]:
        """The fields that its name gives: those without a default."""
        return tuple(field.name for field in fields(cls) if field.default is MISSING)

    @cached_property
    def name(self) -> str:
        """Canonical name: ``parse_scheme(scheme.name)`` gives the scheme back."""
        return ":".join([self.family, *(["x".join(map(str, self.parameters))] if self.parameters else [])])

    @abstractmethod
    def block(self, filters: int, channels: int) -> tuple[int, int]:
        """Filters and input channels that one unit spans in a convolution group of ``filters`` x ``channels``."""

    @property
    def pool(self) -> tuple[int, int] | None:
        """Down and across, the units that compete with one another; None: all units of the layer."""
        return None

    def cover(self, positions: int) -> torch.Tensor:
        """Boolean (units of one block, kernel positions): the positions that each unit of a block spans."""
        return torch.ones(1, positions, dtype=torch.bool) if self.whole_kernel else torch.eye(positions).bool()

    def units_per_block(self, positions: int) -> int:
        """How many units there are in one block: the rows of ``cover``."""
        return 1 if self.whole_kernel else positions

    def contenders(self, norms: torch.Tensor) -> torch.Tensor:
        """``norms`` with -1 for units that may not be kept; by default every unit may."""
        return norms

    def contenders_per_block(self, positions: int) -> int:
        """How many units of one block may be kept together: the number that rates are counted on."""
        return self.units_per_block(positions)

    def kept(self, units: int, rate: float) -> int:
        """Units kept of ``units`` that compete: max(1, floor(units / rate + 0.5)), never more than there are."""
        return max(1, min(units, math.floor(units * self.smallest_rate / rate + 0.5)))

    def fits(self, layer: LayerSpec) -> str | None:
        """None when the scheme can prune ``layer``, else the reason in words."""
        return None if layer.kind in self.kinds else self.misfit

    def signature(self, shape: tuple[int, ...], groups: int) -> tuple[object, ...]:
        """Equal for two schemes exactly when they prune a layer of this weight shape and these groups alike."""
        filters, channels = shape[0] // groups, shape[1]
        rows, columns = self.block(filters, channels)
        rows, columns = min(rows, filters), min(columns, channels)
        grid = math.ceil(filters / rows), math.ceil(channels / columns)
        pool = tuple(map(min, self.pool or grid, grid))
        per_group = self.pool is not None and groups > 1
        whole = self.whole_kernel or math.prod(shape[2:]) == 1
        return rows, columns, whole, pool, per_group, self.removes == "filters"

    @classmethod
    def with_block(cls, filters: int, channels: int) -> Scheme | None:
        """The scheme of this family that has units of ``filters`` x ``channels``, if it can be told from that."""
        return None if cls.parameter_names() else cls()

    def clipped(self, filters: int, channels: int) -> Scheme:
        """The same scheme with parameters no larger than a convolution group of ``filters`` x ``channels``."""
        return self

    def bind(self, dense_weights: Sequence[torch.Tensor]) -> Scheme:
        """The scheme with what it takes from the trained dense network; ``dense_weights`` are its layers' weights."""
        return self


SCHEMES: Registry[type[Scheme]] = Registry("scheme", __package__ or __name__.rpartition(".")[0])


@cache
def parse_scheme(text: str) -> Scheme:
    """Read a scheme as it is written in choices, for instance ``simd:8`` or ``block-punched:8x4``.

    Raises:
        PrunemapError: For an unknown family (with the nearest names) or numbers that are not of the family's form.
    """
    family, colon, numbers = text.partition(":")
    scheme = SCHEMES[family]
    words = numbers.split("x") if colon else []
    if len(words) != len(scheme.parameter_names()) or not all(re.fullmatch("[1-9][0-9]{0,5}", word) for word in words):
        example = "" if scheme.form == scheme.example else f", for instance {scheme.example}"
        raise PrunemapError(f"scheme {text!r}: write {scheme.form}{example}")
    return scheme(*map(int, words))
