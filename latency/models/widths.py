"""What neighbours leave of every layer under a mapping, as expected shares of channels, by its place in the graph.

``pruning.live_counts`` counts by channel groups and never less than there is. Kernels see more: the value of a layer
before a residual addition has that layer's zeros, though its group is whole; and what all readers of a value leave
unread is not computed. Both are followed through the graph as shares of channels, which layers choose independently of
one another unless they choose as a group.
"""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from typing import NamedTuple, Protocol

from ...pruning.network import Network


class Shares(NamedTuple):
    """Shares of channels, by number of value.

    Attributes:
        zero: Channels that are zero.
        unneeded: Channels that nobody reads, or only for what nobody reads.
        held: Channels that have a place in memory: more than are needed where other summands of an addition need them.
    """

    zero: list[float]
    unneeded: list[float]
    held: list[float]


class _Operation(NamedTuple):
    """A ``layer``, an ``addition`` or a function with f(0) != 0 (``opaque``), and the value that it makes.

    Attributes:
        value: Number of that value.
        sources: Numbers of the values that it takes.
        kind: ``layer``, ``depthwise`` for a layer whose channels are those of the one before, ``addition``, ``opaque``.
        group: Channel group of the value, -1 for none.
    """

    value: int
    sources: tuple[int, ...]
    kind: str
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
    """Shares of live channels through a network.

    Values are numbered: first those that layers make, in the network's order, then the input, then all others.

    Attributes:
        sources: Per layer, the number of the value that it reads.
    """

    def __init__(self, network: Network) -> None:
        operations, self._output = _operations(network)
        layers = len(network.layers)
        self._others = 1 + sum(operation.value > layers for operation in operations)
        self.sources = tuple(operation.sources[0] for operation in sorted(operations) if operation.value < layers)
        self._joins = [
            (o.value, o.sources[0], o.sources[-1], o.group) for o in operations if o.kind in ("depthwise", "addition")
        ]
        self._backward = [(o.value, o.sources[0], o.sources[-1], o.kind) for o in reversed(operations)]
        self._find_ties(operations)

    def shares(self, chosen: Sequence[Effect], alike: Set[int]) -> Shares:
        """What layers leave of all values, and so of one another.

        Args:
            chosen: Per layer, what its choice does to channels.
            alike: Channel groups whose producers all keep the same filters.
        """
        zero = self._zero_shares(chosen, alike)
        unneeded, unread = self._unneeded_shares(chosen)
        return Shares(zero, unneeded, self._held_shares(zero, unread, alike))

    def _zero_shares(self, chosen: Sequence[Effect], alike: Set[int]) -> list[float]:
        """Share of channels of each value that are zero."""
        zero = [1.0 - effect.written for effect in chosen] + [0.0] * self._others
        for value, one, other, group in self._joins:
            if one == other or group in alike:
                zero[value] = min(zero[one], zero[other])
            else:
                zero[value] = zero[one] * zero[other]
        return zero

    def _unneeded_shares(self, chosen: Sequence[Effect]) -> tuple[list[float], list[float]]:
        """Share of channels of each value that nobody needs, and that no layer that reads it reads."""
        unneeded = [1.0] * (len(chosen) + self._others)
        unread = unneeded.copy()
        unneeded[self._output] = 0.0
        for value, source, other, kind in self._backward:
            if kind == "layer":
                skipped = chosen[value].unread
                if skipped and unneeded[value] and chosen[value].rows:
                    # Each block of filters reads its own channels: where fewer are needed, more channels are left out.
                    skipped **= 1.0 - unneeded[value] ** chosen[value].rows
            elif kind == "depthwise":
                skipped = 1.0 - (1.0 - chosen[value].unread) * (1.0 - unneeded[value])
            else:
                skipped = 0.0 if kind == "opaque" else unneeded[value]
                unneeded[source] *= skipped
                unneeded[other] *= skipped
                continue
            unneeded[source] *= skipped
            unread[source] *= skipped
        return unneeded, unread

    def _held_shares(self, zero: list[float], unread: list[float], alike: Set[int]) -> list[float]:
        """Share of channels of each value that have a place: what additions tie together has the same ones."""
        held = [(1.0 - none) * (1.0 - skipped) for none, skipped in zip(zero, unread, strict=True)]
        for value in self._whole:
            held[value] = 1.0
        for values, group in self._tied:
            present = 1.0 - zero[values[-1]]  # what no summand holds, the sum does not hold
            if group in alike:
                share = (1.0 - math.prod([unread[value] for value in values])) * present
            else:
                share = min(1.0 - math.prod([1.0 - held[value] for value in values]), present)
            for value in values:
                held[value] = share
        return held

    def _find_ties(self, operations: Sequence[_Operation]) -> None:
        """Which values hold the same channels, since additions tie them, and which of them may hold fewer than all."""
        tied = list(range(len(self.sources) + self._others))
        needed = {len(self.sources), self._output}
        for operation in operations:
            if operation.kind == "opaque":
                needed |= {operation.value, *operation.sources}
            elif operation.kind == "addition":
                joined = {operation.value, *(tied[source] for source in operation.sources)}
                tied = [operation.value if root in joined else root for root in tied]
        members: dict[int, list[int]] = {}
        for value, root in enumerate(tied):
            members.setdefault(root, []).append(value)
        whole = {tied[value] for value in needed}
        groups = {operation.value: operation.group for operation in operations}
        self._whole = [value for root in whole for value in members[root]]
        self._tied = [(m, groups[m[-1]]) for root, m in members.items() if root not in whole and len(m) > 1]


def _operations(network: Network) -> tuple[list[_Operation], int]:
    """What makes the values of a network, in execution order, and the number of the one that is the output."""
    layers = {layer.name: number for number, layer in enumerate(network.layers)}
    writers = {name: group for group, members in enumerate(network.groups) for name in members.producers}
    value_of = {network.nodes[0].name: len(layers)}
    groups = [*(writers.get(name, -1) for name in layers), -1]  # of every value
    found: list[_Operation] = []
    for node in network.nodes[1:]:
        sources = tuple(value_of[name] for name in node.inputs)
        if node.target in layers:
            value, kind = layers[node.target], "depthwise" if network.layer(node.target).follows else "layer"
        elif node.op == "add" or not node.keeps_zero:
            value, kind = len(groups), "addition" if node.op == "add" else "opaque"
            groups.append(groups[sources[0]])
        else:
            value_of[node.name] = sources[0]
            continue
        value_of[node.name] = value
        found.append(_Operation(value, sources, kind, groups[value]))
    return found, value_of[network.nodes[-1].name]
