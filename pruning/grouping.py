"""Channel groups: which layers write, read and carry the same channels."""

from __future__ import annotations

from collections.abc import Iterable

from .errors import PrunemapError
from .network import ChannelGroup, LayerSpec, Node


def channel_groups(nodes: tuple[Node, ...], layers: Iterable[LayerSpec]) -> tuple[ChannelGroup, ...]:
    """The channel groups of a graph, the input's first, then in order of their first producer.

    Additions unite the channels of their terms; batch norms, activations, pools, flattening and depthwise layers carry
    channels through; every other layer ends one group and starts another. Groups are fixed where a channel may not be
    removed: at the network's input and output, at a function with f(0) != 0 and on both sides of a grouped
    convolution, whose groups must stay equally large.
    """
    by_name = {layer.name: layer for layer in layers}
    groups = _Groups()
    for node in nodes:
        layer = by_name.get(node.target or "")
        if node.op == "input":
            groups.start(node.name, fixed=True)
        elif layer is None:
            groups.carry(node)
        elif layer.follows:
            groups.carry(node)
            groups.followers[node.name] = layer
        else:
            groups.consumers[node.name] = layer, node.inputs[0]
            groups.producers[node.name] = layer
            groups.start(node.name, fixed=layer.groups > 1)
            if layer.groups > 1:
                groups.fix(node.inputs[0])
    groups.fix(nodes[-1].name)
    return groups.collect(nodes)


class _Groups:
    """Union-find over node names."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}
        self._fixed: set[str] = set()
        self.producers: dict[str, LayerSpec] = {}
        self.consumers: dict[str, tuple[LayerSpec, str]] = {}
        self.followers: dict[str, LayerSpec] = {}

    def start(self, name: str, fixed: bool) -> None:
        self._parent[name] = name
        if fixed:
            self._fixed.add(name)

    def carry(self, node: Node) -> None:
        """Put a node's result into the group of all its inputs."""
        root = self._root(node.inputs[0])
        self._parent[node.name] = root
        for other in node.inputs[1:]:
            self._parent[self._root(other)] = root
        if not node.keeps_zero:
            self.fix(node.name)

    def fix(self, name: str) -> None:
        self._fixed.add(name)

    def collect(self, nodes: tuple[Node, ...]) -> tuple[ChannelGroup, ...]:
        fixed = {self._root(name) for name in self._fixed}
        roots = list(dict.fromkeys(self._root(node.name) for node in nodes if node.op == "input"))
        roots += [root for root in dict.fromkeys(map(self._root, self.producers)) if root not in roots]
        return tuple(self._group(root, nodes, root in fixed) for root in roots)

    def _group(self, root: str, nodes: tuple[Node, ...], fixed: bool) -> ChannelGroup:
        producers = [layer for name, layer in self.producers.items() if self._root(name) == root]
        consumers = [layer for layer, source in self.consumers.values() if self._root(source) == root]
        inside = [node for node in nodes if self._root(node.name) == root]
        images = [node for node in inside if node.op == "input" and node.shape]
        sizes = sorted({layer.out_channels for layer in producers} | {node.shape[0] for node in images})
        if len(sizes) > 1:
            names = ", ".join(layer.name for layer in producers)
            raise PrunemapError(f"{names}: sums of maps with {sizes} channels; flatten after the sum, not before")
        return ChannelGroup(
            producers=tuple(layer.name for layer in producers),
            consumers=tuple(layer.name for layer in consumers),
            followers=tuple(layer.name for name, layer in self.followers.items() if self._root(name) == root),
            batchnorms=tuple(node.target for node in inside if node.op == "batchnorm" and node.target is not None),
            channels=sizes[0] if sizes else consumers[0].in_channels,
            fixed=fixed,
        )

    def _root(self, name: str) -> str:
        while self._parent[name] != name:
            name = self._parent[name]
        return name
