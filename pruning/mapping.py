"""A choice for every prunable layer: frozen, hashable, plain JSON."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import ItemsView, Iterator
from collections.abc import Mapping as AbstractMapping
from dataclasses import dataclass
from typing import Any

from .errors import PrunemapError
from .schemes import parse_scheme


@dataclass(frozen=True, order=True)
class Choice:
    """A scheme and a rate for one layer.

    Attributes:
        scheme: Canonical name of the scheme, for instance ``block-punched:8x4``.
        rate: All weights / weights kept, at least 1.

    Raises:
        PrunemapError: For an unknown or malformed scheme, a rate below 1 or not finite.
    """

    scheme: str = "dense"
    rate: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "scheme", parse_scheme(self.scheme).name)
        try:
            rate = float(self.rate)
        except (TypeError, ValueError, OverflowError):
            rate = math.nan
        if not math.isfinite(rate) or rate < 1.0:
            raise PrunemapError(f"rate {self.rate!r} of scheme {self.scheme}: must be a finite number >= 1")
        object.__setattr__(self, "rate", 1.0 if self.scheme == "dense" else rate)

    def __str__(self) -> str:
        return "dense" if self.scheme == "dense" else f"{self.scheme}@{self.rate:g}"

    @classmethod
    def parse(cls, text: str) -> Choice:
        """Read ``scheme@rate`` (or ``dense``) as ``str(choice)`` writes it."""
        scheme, at, rate = text.partition("@")
        try:
            number = float(rate) if at else 1.0
        except ValueError:
            raise PrunemapError(f"choice {text!r}: {rate!r} is not a rate; write scheme@rate, e.g. simd:8@4") from None
        return cls(scheme, number)


DENSE = Choice()


class Mapping(AbstractMapping[str, Choice]):
    """Layer name -> choice. Layers that are not named are dense, and dense ones are not stored."""

    __slots__ = ("_choices",)

    def __init__(self, choices: AbstractMapping[str, Choice] | None = None) -> None:
        given = choices or {}
        self._choices = {name: given[name] for name in sorted(given) if given[name].scheme != DENSE.scheme}

    def __getitem__(self, layer: str) -> Choice:
        return self._choices.get(layer, DENSE)

    def __contains__(self, layer: object) -> bool:
        return layer in self._choices

    def __iter__(self) -> Iterator[str]:
        return iter(self._choices)

    def __len__(self) -> int:
        return len(self._choices)

    def items(self) -> ItemsView[str, Choice]:
        """Layer name and choice of all layers that are not dense."""
        return self._choices.items()

    def __hash__(self) -> int:
        return hash(tuple(self._choices.items()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mapping) and self._choices == other._choices

    def __repr__(self) -> str:
        return f"Mapping({{{', '.join(f'{name}: {choice}' for name, choice in self._choices.items())}}})"

    def to_json(self) -> str:
        """Plain JSON: layer name -> {"scheme", "rate"}, sorted by name."""
        return json.dumps({n: {"scheme": c.scheme, "rate": c.rate} for n, c in self._choices.items()}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Mapping:
        """Read what ``to_json`` wrote.

        Raises:
            PrunemapError: When the text is not JSON of that form, or holds an invalid choice.
        """
        try:
            data: Any = json.loads(text)
        except json.JSONDecodeError as error:
            raise PrunemapError(f"mapping is not JSON: {error}") from None
        if not isinstance(data, dict):
            raise PrunemapError('mapping: expected {"layer": {"scheme": ..., "rate": ...}}')
        choices = {}
        for name, entry in data.items():
            if not isinstance(entry, dict) or set(entry) - {"scheme", "rate"} or "scheme" not in entry:
                raise PrunemapError(f'mapping, layer {name!r}: expected {{"scheme": ..., "rate": ...}}, got {entry!r}')
            rate = entry.get("rate", 1.0)
            if isinstance(rate, bool) or not isinstance(rate, int | float):
                raise PrunemapError(f"mapping, layer {name!r}: rate {rate!r} is not a number")
            try:
                choices[name] = Choice(str(entry["scheme"]), rate)
            except PrunemapError as error:
                raise PrunemapError(f"mapping, layer {name!r}: {error}") from None
        return cls(choices)

    def digest(self) -> str:
        """Hexadecimal SHA-256 of the JSON: the same in every process and version."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()
