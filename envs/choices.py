"""Which choices the layers of one problem may get."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from ..pruning import canonical_choice, misfit, parse_scheme
from ..pruning.errors import PrunemapError, unknown_name
from ..pruning.mapping import DENSE, Choice, Mapping
from ..pruning.network import LayerSpec, Network


@dataclass(frozen=True, eq=False)
class Choices:
    """A catalogue of choices and what each layer may take from it.

    Attributes:
        network: The captured network.
        catalogue: Every choice that some layer may get, dense first: independent of the network, so that policies carry
            over from one network to another.
        skip: Layers that stay dense.
        snap: Whether a rate off the catalogue is moved to the nearest one of its scheme (tables know no others).

    Raises:
        PrunemapError: When ``skip`` names a layer that the network has not.
    """

    network: Network
    catalogue: tuple[Choice, ...]
    skip: frozenset[str] = field(default=frozenset())
    snap: bool = False

    def __post_init__(self) -> None:
        known = [layer.name for layer in self.network.layers]
        for name in sorted(self.skip - set(known)):
            raise unknown_name("layer in choices.skip:", name, known)

    @cached_property
    def schemes(self) -> tuple[str, ...]:
        """Names of the catalogue's schemes, in its order; dense is the first."""
        return tuple(dict.fromkeys(choice.scheme for choice in self.catalogue))

    @cached_property
    def allowed(self) -> dict[str, tuple[Choice, ...]]:
        """Layer name -> the choices of the catalogue that differ for it, in the catalogue's order, dense first.

        Left out are choices that do not fit the layer and, of those that give it the same mask, all but the first.
        """
        return {name: tuple(words.values()) for name, words in self._words.items()}

    def canonical(self, mapping: Mapping) -> Mapping:
        """The mapping that stands for all that prune the network in the same way: canonical of itself, too.

        Raises:
            PrunemapError: For a layer that the network has not, or a choice that the layer may not get. Rates off the
                catalogue are legal.
        """
        return Mapping({name: self._canonical(name, choice) for name, choice in mapping.items()})

    def named(self, canonical: Mapping) -> Mapping:
        """A canonical mapping in the catalogue's own words, where it has words for it.

        The canonical form of ``simd:8`` on four filters is ``column``; a catalogue may hold only the former.
        """
        return Mapping({name: self._words[name].get(choice, choice) for name, choice in canonical.items()})

    @cached_property
    def _words(self) -> dict[str, dict[Choice, Choice]]:
        """Layer name -> canonical choice -> the first choice of the catalogue that is the same."""
        return {layer.name: self._distinct(layer) for layer in self.network.layers}

    def _distinct(self, layer: LayerSpec) -> dict[Choice, Choice]:
        first: dict[Choice, Choice] = {}
        for choice in self.catalogue:
            if self._objection(layer, choice, self.schemes) is None:
                first.setdefault(canonical_choice(layer, choice), choice)
        return first

    def _canonical(self, name: str, choice: Choice) -> Choice:
        key = name, choice.scheme, choice.rate
        if key not in self._seen:
            self._seen[key] = self._allowed_canonical(self.network.layer(name), choice)
        return self._seen[key]

    @cached_property
    def _seen(self) -> dict[tuple[str, str, float], Choice]:
        """Canonical choices found so far: a search asks for the same ones again and again."""
        return {}

    def _allowed_canonical(self, layer: LayerSpec, choice: Choice) -> Choice:
        words = self._words[layer.name]
        schemes = dict.fromkeys([*self.schemes, *(known.scheme for known in words)])
        if objection := self._objection(layer, choice, tuple(schemes)):
            raise PrunemapError(f"layer {layer.name!r} may not get {choice}: {objection}")
        found = canonical_choice(layer, choice)
        return _nearest(found, words) if self.snap else found

    def _objection(self, layer: LayerSpec, choice: Choice, schemes: tuple[str, ...]) -> str | None:
        """Why the layer may not get the choice in this problem, or None."""
        if choice == DENSE:
            return None
        if layer.name in self.skip:
            return "it stays dense (choices.skip)"
        if choice.scheme not in schemes:
            return f"the problem's schemes are {', '.join(self.schemes)}"
        if layer.name in self._outputs and parse_scheme(choice.scheme).removes == "filters":
            return "its filters are the network's outputs"
        return misfit(layer, choice)

    @cached_property
    def _outputs(self) -> frozenset[str]:
        """Layers whose filters are the network's outputs: no other layer comes after them."""
        layers = {layer.name for layer in self.network.layers}
        nodes = {node.name: node for node in self.network.nodes}
        found: set[str] = set()
        waiting = [self.network.nodes[-1]]
        while waiting:
            node = waiting.pop()
            if node.target in layers:
                found.add(node.target)
            else:
                waiting += [nodes[name] for name in node.inputs]
        return frozenset(found)


def _nearest(choice: Choice, known: Iterable[Choice]) -> Choice:
    """Of the known choices with the scheme of ``choice``, the one with the nearest rate, as a ratio."""
    same = [other for other in known if other.scheme == choice.scheme]
    return min(same, key=lambda other: abs(math.log(other.rate / choice.rate)), default=DENSE)
