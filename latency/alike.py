"""Which layers of a network cost the same: what one of them takes need not be measured again on another."""

from __future__ import annotations

from dataclasses import replace

from ..pruning.network import Network, Node

Key = tuple[object, ...]


def layer_keys(network: Network) -> dict[str, Key]:
    """Layer name -> what its cost depends on, besides what a mapping does: equal for layers that cost the same.

    The layer's own settings and map sizes; its epilogue, that is the operations between it and the layers that read its
    result; and the kernels, strides and paddings of all that read the values on both of its sides, which decide how
    these lie in memory.
    """
    layers = {layer.name: layer for layer in network.layers}
    readers: dict[str, list[Node]] = {node.name: [] for node in network.nodes}
    for node in network.nodes:
        for source in node.inputs:
            readers[source].append(node)
    sources = {node.target: node.inputs[0] for node in network.nodes if node.target in layers}
    nodes = {node.target: node for node in network.nodes if node.target in layers}

    def around(name: str) -> tuple[tuple[object, ...], ...]:
        """What follows a value, up to and with the next layers; sorted, each once."""
        found: set[tuple[object, ...]] = set()
        for reader in readers[name]:
            if reader.target in layers:
                layer = layers[reader.target]
                found.add((layer.kind, layer.kernel, layer.stride, layer.padding))
            else:
                found.add((reader.op, *reader.attrs))
                found |= set(around(reader.name))
        return tuple(sorted(found, key=repr))

    return {
        name: (replace(layer, name=""), around(nodes[name].name), around(sources[name]))
        for name, layer in layers.items()
    }
