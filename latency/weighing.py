"""What a mapping leaves of every layer of known weights: found as compiling finds it."""

from __future__ import annotations

from collections.abc import Mapping as AbstractMapping

from torch import Tensor

from ..kernels.lowering import compact_values
from ..kernels.operations import Value
from ..pruning import Liveness, Pruner
from ..pruning.mapping import Mapping
from ..pruning.network import Network
from ._pricing import Left
from .rows import Remainder


class Weighing:
    """Prunes the weights under one mapping after another, and looks at what is left.

    Args:
        network: The structure.
        weights: State dict of the dense network; it must not change.
    """

    def __init__(self, network: Network, weights: AbstractMapping[str, Tensor]) -> None:
        self._network = network
        self._pruner = Pruner(network, weights)
        self._nodes = {node.target: node for node in network.nodes}

    def __call__(self, mapping: Mapping) -> list[Left]:
        """What is left, in the order of the network's layers; errors as ``Pruner.state``."""
        state = self._pruner.state(mapping)
        liveness = Liveness(self._network, state)
        live, values = liveness.channels(), compact_values(self._network, liveness.values())
        found = []
        for layer in self._network.layers:
            node = self._nodes[layer.name]
            own = Remainder.of(layer, state[f"{layer.name}.weight"], live[layer.name])
            inputs = 1.0 if layer.groups > 1 else own.given / layer.in_channels  # groups lose inputs with outputs
            stored, planes = _held(values[node.name]), _held(values[node.inputs[0]])
            found.append(Left(own.kept, inputs, stored, planes, own.live_out > 0))
        return found


def _held(value: Value) -> float:
    """Share of a value's channels that have a place in memory."""
    return value.shape[0] / len(value.channels)
