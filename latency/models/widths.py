"""What neighbours leave of every layer under a mapping, as expected shares of channels, by its place in the graph.

``pruning.live_counts`` counts by channel groups and never less than there is. Kernels see more: the value of a layer
before a residual addition has that layer's zeros, though its group is whole; and what all readers of a value leave
unread is not computed. Both are followed through the graph as shares of channels, which layers choose independently of
one another unless they choose as a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...pruning.network import Network
from .._pricing import Graph, Kind


class _Operation(NamedTuple):
    """A layer, an addition or a function with f(0) != 0 (``opaque``), and the value that it makes.

    Attributes:
        value: Number of that value.
        sources: Numbers of the values that it takes.
        kind: ``depthwise`` for a layer whose channels are those of the one before.
        group: Channel group of the value, -1 for none.
    """

    value: int
    sources: tuple[int, ...]
    kind: Kind
    group: int


class ExpectedWidths(Graph):
    """Shares of live channels through a network.

    Values are numbered: first those that layers make, in the network's order, then the input, then all others.
    ``sources`` is, per layer, the number of the value that it reads.

    ``shares(effects, alike)`` is what layers leave of all values, and so of one another. It takes what each layer's
    choice does to channels (``Effect``), and the channel groups whose producers all keep the same filters. It gives
    three lists of shares of channels, by number of value: those that are zero; those that nobody reads, or only for
    what nobody reads; and those that have a place in memory, which are more than are needed where other summands of an
    addition need them. A fourth list tells, by layer, how likely any of its filters is needed: of few that it keeps
    and few that are read, none may be the same, and then neither it nor what feeds it alone is computed. A fifth tells
    the relative standard deviation, by chance, of what is left of a layer that is.
    """

    def __init__(self, network: Network) -> None:
        operations, output = _operations(network)
        whole, ties = _ties(operations, len(network.layers), output)
        steps = [(o.value, o.sources[0], o.sources[-1], o.kind, o.group) for o in operations]
        filters = [layer.out_channels for layer in network.layers]
        super().__init__(filters, len(network.groups), output, steps, whole, ties)


def _ties(operations: Sequence[_Operation], layers: int, output: int) -> tuple[list[int], list[tuple[list[int], int]]]:
    """Values that hold all channels, and those, with their group, that hold the same ones, since additions tie them."""
    tied = list(range(max(layers, *(operation.value for operation in operations)) + 1))
    needed = {layers, output}
    for operation in operations:
        if operation.kind == Kind.opaque:
            needed |= {operation.value, *operation.sources}
        elif operation.kind == Kind.addition:
            joined = {operation.value, *(tied[source] for source in operation.sources)}
            tied = [operation.value if root in joined else root for root in tied]
    members: dict[int, list[int]] = {}
    for value, root in enumerate(tied):
        members.setdefault(root, []).append(value)
    whole = {tied[value] for value in needed}
    groups = {operation.value: operation.group for operation in operations}
    full = [value for root in whole for value in members[root]]
    return full, [(m, groups[m[-1]]) for root, m in members.items() if root not in whole and len(m) > 1]


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
            value, kind = layers[node.target], Kind.depthwise if network.layer(node.target).follows else Kind.layer
        elif node.op == "add" or not node.keeps_zero:
            value, kind = len(groups), Kind.addition if node.op == "add" else Kind.opaque
            groups.append(groups[sources[0]])
        else:
            value_of[node.name] = sources[0]
            continue
        value_of[node.name] = value
        found.append(_Operation(value, sources, kind, groups[value]))
    return found, value_of[network.nodes[-1].name]
