"""What neighbours leave of every layer under a mapping, as expected shares of channels, by its place in the graph.

``pruning.live_counts`` counts by channel groups and never less than there is. Kernels see more: the value of a layer
before a residual addition has that layer's zeros, though its group is whole; and what all readers of a value leave
unread is not computed. Both are followed through the graph as shares of channels, which layers choose independently of
one another unless they choose as a group.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import NamedTuple

from ...pruning.network import Network

Shares = tuple[float, float, float]
"""Shares of a layer's channels: inputs that are not zero, outputs that somebody reads, outputs that have a place in
memory. The last is the larger one where other summands of an addition hold what this layer need not compute."""


class _Operation(NamedTuple):
    """A layer, an addition (``layer`` is -1) or a function with f(0) != 0 (``opaque``), between values."""

    sources: tuple[int, ...]
    layer: int
    follows: bool
    opaque: bool
    group: int


@dataclass(frozen=True)
class _Place:
    """Where a layer stands: the values it reads and makes, and those between which its channels are shared.

    Attributes:
        source: The value it reads.
        value: The value it makes.
        first: The first of the values that additions tie to it: all that is read of any is reached from there.
        last: The last of them: their sum.
        whole: Whether all channels have to be there: the network's output, or read by a function with f(0) != 0.
        follows: Whether it is a depthwise layer.
    """

    source: int
    value: int
    first: int
    last: int
    whole: bool
    follows: bool


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
        self._backward = tuple((number, *self._operations[number - 1]) for number in range(len(self._operations), 0, -1))
        self.places = self._find_places(len(network.layers))

    def shares(self, written: Sequence[float], read: Sequence[float], alike: Set[int]) -> list[Shares]:
        """What neighbours leave to every layer.

        Args:
            written: Per layer, the share of its filters that its choice leaves.
            read: Per layer, the share of its input channels that its choice reads.
            alike: Channel groups whose producers all keep the same filters.
        """
        zero = self._zero_shares(written, alike)
        unneeded = self._unneeded_shares(read)
        found = []
        for place in self.places:
            produced, needed = 1.0 - zero[place.source], 1.0 - unneeded[place.value]
            stored = 1.0 if place.whole else (1.0 - zero[place.last]) * (1.0 - unneeded[place.first])
            found.append((produced * needed, needed, stored) if place.follows else (produced, needed, stored))
        return found

    def _zero_shares(self, written: Sequence[float], alike: Set[int]) -> list[float]:
        """Share of channels of each value that are zero."""
        zero = [0.0]
        for sources, layer, follows, opaque, group in self._operations:
            if opaque:
                zero.append(0.0)
            elif layer >= 0:
                zero.append(zero[sources[0]] if follows else 1.0 - written[layer])
            else:
                one, other = (zero[source] for source in sources) if len(sources) == 2 else (zero[sources[0]],) * 2
                zero.append(min(one, other) if group in alike else one * other)
        return zero

    def _unneeded_shares(self, read: Sequence[float]) -> list[float]:
        """Share of channels of each value that nobody reads."""
        unneeded = [1.0] * (len(self._operations) + 1)
        unneeded[self._output] = 0.0
        for number, sources, layer, follows, opaque, _ in self._backward:
            if layer >= 0:
                skipped = 1.0 - read[layer] * (1.0 - unneeded[number]) if follows else 1.0 - read[layer]
                unneeded[sources[0]] *= skipped
                continue
            skipped = 0.0 if opaque else unneeded[number]
            for source in sources:
                unneeded[source] *= skipped
        return unneeded

    def _find_places(self, layers: int) -> tuple[_Place, ...]:
        tied = list(range(len(self._operations) + 1))
        whole = {self._output}
        for number, operation in enumerate(self._operations, start=1):
            if operation.opaque:
                whole |= {number, *operation.sources}
            elif operation.layer < 0:
                joined = {tied[source] for source in operation.sources}
                tied = [number if root in joined else root for root in tied]
        members: dict[int, list[int]] = {}
        for value, root in enumerate(tied):
            members.setdefault(root, []).append(value)
        found: dict[int, _Place] = {}
        for number, operation in enumerate(self._operations, start=1):
            if operation.layer >= 0:
                own = members[tied[number]]
                everything = bool(whole & set(own))
                place = _Place(operation.sources[0], number, own[0], own[-1], everything, operation.follows)
                found[operation.layer] = place
        return tuple(found[layer] for layer in range(layers))
