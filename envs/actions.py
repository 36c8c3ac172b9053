"""How an agent names its choice for a layer: one number, or the paper's two."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import Any, Protocol

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from ..pruning.mapping import Choice
from ..pruning.schemes import parse_scheme

Mask = NDArray[np.bool_]


class Actions(Protocol):
    """An action space over a catalogue of choices, the same for every layer."""

    @property
    def space(self) -> spaces.Space[Any]:
        """The action space."""
        ...

    def choice(self, action: Any) -> Choice:
        """The choice that an action names."""
        ...

    def masks(self, allowed: Container[Choice]) -> Mask:
        """A new vector: which actions name an allowed choice, laid out as sb3-contrib's ``MaskablePPO`` asks."""
        ...


class FlatActions:
    """``Discrete``: the choice's place in the catalogue."""

    def __init__(self, catalogue: Sequence[Choice]) -> None:
        self._catalogue = tuple(catalogue)
        self.space = spaces.Discrete(len(self._catalogue))

    def choice(self, action: Any) -> Choice:
        """See ``Actions``."""
        return self._catalogue[int(action)]

    def masks(self, allowed: Container[Choice]) -> Mask:
        """(catalogue,)."""
        return np.array([choice in allowed for choice in self._catalogue])


class TwoPartActions:
    """``MultiDiscrete``: Gong et al.'s {pruning regularity, block size}, section 5.1, rates beside the block sizes.

    The first part is the family of schemes. The second counts through the family's block sizes and rates and starts
    again at the end, so that every pair names a choice.
    """

    def __init__(self, catalogue: Sequence[Choice]) -> None:
        families: dict[str, list[Choice]] = {}
        for choice in catalogue:
            families.setdefault(parse_scheme(choice.scheme).family, []).append(choice)
        self._families = list(families.values())
        self._variants = max(map(len, self._families))
        self.space = spaces.MultiDiscrete([len(self._families), self._variants])

    def choice(self, action: Any) -> Choice:
        """See ``Actions``."""
        family = self._families[int(action[0])]
        return family[int(action[1]) % len(family)]

    def masks(self, allowed: Container[Choice]) -> Mask:
        """(families + variants,): families with an allowed choice, then variants that some family allows.

        The two parts are masked apart, so a pair may still be illegal.
        """
        legal = np.array(
            [
                [family[variant % len(family)] in allowed for variant in range(self._variants)]
                for family in self._families
            ]
        )
        return np.concatenate([legal.any(axis=1), legal.any(axis=0)])


ACTIONS: dict[str, Callable[[Sequence[Choice]], Actions]] = {"flat": FlatActions, "two-part": TwoPartActions}
