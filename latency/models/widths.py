"""What neighbours leave of every layer under a mapping, as expected shares of channels, by its place in the graph.

``pruning.live_counts`` counts by channel groups and never less than there is. Kernels see more: the value of a layer
before a residual addition has that layer's zeros, though its group is whole; and what all readers of a value leave
unread is not computed. Both are followed through the graph as shares of channels, which layers choose independently of
one another unless they choose as a group.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import NamedTuple, Protocol

from ...pruning.network import Network

Shares = tuple[float, float, float, float]
"""Shares of a layer's channels: inputs that are not zero, outputs that somebody reads, outputs and inputs that have a
place in memory. More have a place than are read where other summands of an addition need them."""


class _Operation(NamedTuple):
    """A layer, an addition (``layer`` is -1) or a function with f(0) != 0 (``opaque``), between values."""

    sources: tuple[int, ...]
    layer: int
    follows: bool
    opaque: bool
    group: int


class Effect(Protocol):
    """What a choice does to channels."""

    @property
    def written(self) -> float:
        """Share of the layer's filters that stay."""
        ...

    @property
    def unread(self) -> float:
        """Share of its input channels that it does not read when all of its filters are needed."""
        ...

    @property
    def rows(self) -> int:
        """Filters of a block that reads channels of its own; 0 where all filters read the same ones."""
        ...


class ExpectedWidths:
    """Shares of live channels through a network. Values are numbered: 0 is the input, i + 1 what operation i makes."""

    def __init__(self, network: Network) -> None:
        index = {layer.name: i for i, layer in enumerate(network.layers)}
        writers = {name: group for group, members in enumerate(network.groups) for name in members.producers}
        value_of: dict[str, int] = {network.nodes[0].name: 0}
        made_by: list[str] = [""]
        self._operations: list[_Operation] = []
        for node in network.nodes[1:]:
            sources = tuple(value_of[name] for name in node.inputs)
            layer = index.get(node.target or "", -1)
            if layer < 0 and node.op != "add" and node.keeps_zero:
                value_of[node.name] = sources[0]
                continue
            follows = layer >= 0 and network.layers[layer].follows
            made_by.append(node.target if layer >= 0 and node.target else made_by[sources[0]])
            group = writers.get(made_by[-1], -1)
            self._operations.append(_Operation(sources, layer, follows, not node.keeps_zero, group))
            value_of[node.name] = len(self._operations)
        self._output = value_of[network.nodes[-1].name]
        self._backward = tuple(
            (number, *self._operations[number - 1]) for number in range(len(self._operations), 0, -1)
        )
        self._find_places()

    def shares(self, chosen: Sequence[Effect], alike: Set[int]) -> list[Shares]:
        """What neighbours leave to every layer.

        Args:
            chosen: Per layer, what its choice does to channels.
            alike: Channel groups whose producers all keep the same filters.
        """
        zero = self._zero_shares(chosen, alike)
        unneeded, unread = self._unneeded_shares(chosen)
        held = self._held_shares(zero, unread, alike)
        return [(1.0 - zero[source], 1.0 - unneeded[value], held[value], held[source]) for source, value in self.places]

    def _zero_shares(self, chosen: Sequence[Effect], alike: Set[int]) -> list[float]:
        """Share of channels of each value that are zero."""
        zero = [0.0]
        for sources, layer, follows, opaque, group in self._operations:
            if opaque:
                zero.append(0.0)
            elif layer >= 0:
                zero.append(zero[sources[0]] if follows else 1.0 - chosen[layer].written)
            elif len(sources) == 1:
                zero.append(zero[sources[0]])
            else:
                one, other = zero[sources[0]], zero[sources[1]]
                zero.append(min(one, other) if group in alike else one * other)
        return zero

    def _unneeded_shares(self, chosen: Sequence[Effect]) -> tuple[list[float], list[float]]:
        """Share of channels of each value that nobody needs, and that none of its own readers reads."""
        unneeded = [1.0] * (len(self._operations) + 1)
        unread = unneeded.copy()
        unneeded[self._output] = 0.0
        for number, sources, layer, follows, opaque, _ in self._backward:
            if layer < 0:
                skipped = 0.0 if opaque else unneeded[number]
                for source in sources:
                    unneeded[source] *= skipped
                continue
            effect = chosen[layer]
            if follows:
                skipped = 1.0 - (1.0 - effect.unread) * (1.0 - unneeded[number])
            elif effect.rows and effect.unread and unneeded[number]:
                # Each block of filters reads its own channels: where fewer are needed, more channels are left out.
                skipped = effect.unread ** (1.0 - unneeded[number] ** effect.rows)
            else:
                skipped = effect.unread
            unneeded[sources[0]] *= skipped
            unread[sources[0]] *= skipped
        return unneeded, unread

    def _held_shares(self, zero: list[float], unread: list[float], alike: Set[int]) -> list[float]:
        """Share of channels of each value that have a place: what additions tie together has the same ones."""
        held = [1.0] * len(zero)
        for values, group in self._tied:
            if len(values) == 1:
                held[values[0]] = (1.0 - zero[values[0]]) * (1.0 - unread[values[0]])
                continue
            dropped = 1.0
            for value in values:
                dropped *= unread[value] if group in alike else 1.0 - (1.0 - zero[value]) * (1.0 - unread[value])
            present = 1.0 - zero[values[-1]]  # what no summand holds, the sum does not hold
            share = (1.0 - dropped) * present if group in alike else min(1.0 - dropped, present)
            for value in values:
                held[value] = share
        return held

    def _find_places(self) -> None:
        """Which values hold the same channels, since additions tie them, and which of them may hold fewer than all."""
        tied = list(range(len(self._operations) + 1))
        needed = {self._output}
        for number, operation in enumerate(self._operations, start=1):
            if operation.opaque:
                needed |= {number, *operation.sources}
            elif operation.layer < 0:
                joined = {tied[source] for source in operation.sources}
                tied = [number if root in joined or value == number else root for value, root in enumerate(tied)]
        members: dict[int, list[int]] = {}
        for value, root in enumerate(tied):
            members.setdefault(root, []).append(value)
        whole = {tied[0], *(tied[value] for value in needed)}
        groups = {number: operation.group for number, operation in enumerate(self._operations, start=1)}
        self._tied = [(values, groups[values[-1]]) for root, values in members.items() if root not in whole]
        layers = [(o.layer, o.sources[0], number) for number, o in enumerate(self._operations, 1) if o.layer >= 0]
        self.places = [(source, value) for _, source, value in sorted(layers)]
