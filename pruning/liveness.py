"""What a mapping leaves alive: counted without weights for predictions, or read from the zeros that are there.

Removing a filter makes the channel it wrote dead, where every producer of the channel's group removed it; dropping an
input channel makes it dead where nobody else reads it. Both ways agree on that. ``live_counts`` knows no weights, so
it does not see coincidences that ``live_channels`` finds, such as two sets of filters that happen to overlap or an
unstructured filter that happens to be empty: it never counts less than there is.
"""

from __future__ import annotations

from collections.abc import Mapping as AbstractMapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from .choices import canonical_mapping, lone_reader, shared_filters
from .errors import PrunemapError
from .mapping import Mapping
from .network import LayerSpec, Network, Node
from .schemes import kept_units, kept_weights, parse_scheme

Flags = npt.NDArray[np.bool_]
State = AbstractMapping[str, torch.Tensor | npt.NDArray[np.float32]]


@dataclass(frozen=True)
class LayerCount:
    """What is left of one layer.

    Attributes:
        live_in: Input channels that carry something and are read.
        live_out: Filters that are computed.
        kept_weights: Weights that are kept among those channels and filters.
        macs: Multiply-accumulates by kept weights, for one input.
    """

    live_in: int
    live_out: int
    kept_weights: int
    macs: int


def live_counts(network: Network, mapping: Mapping) -> dict[str, LayerCount]:
    """Count what ``mapping`` leaves of every layer, without weights.

    Filters are counted first, among all of a layer's; then channels, among the inputs that filters left alive; then
    every other scheme, on the layer of live filters and channels as if it were a smaller layer.

    Returns:
        Layer name -> count, for all layers of the network.

    Raises:
        PrunemapError: For a layer that the network has not, or a choice that does not fit its layer.
    """
    mapping = canonical_mapping(network, mapping)
    alive = [group.channels for group in network.groups]
    filters: dict[str, int] = {}
    channels: dict[str, int] = {}
    removes = {name: parse_scheme(choice.scheme).removes for name, choice in mapping.items()}
    for name, choice in mapping.items():
        if removes[name] == "filters":
            layer = network.layer(name)
            filters[name] = kept_units(parse_scheme(choice.scheme), choice.rate, layer.weight_shape, layer.groups)
    for index, group in enumerate(network.groups):
        if not group.fixed and shared_filters(group, mapping):
            alive[index] = filters[group.producers[0]]
    for name, choice in mapping.items():
        if removes[name] == "channels":
            layer, index = network.layer(name), network.reads[name]
            shape = layer.live_shape(layer.out_channels, _inputs(network, layer, alive))
            channels[name] = kept_units(parse_scheme(choice.scheme), choice.rate, shape, layer.groups)
            if lone_reader(network, network.groups[index]) == name:
                alive[index] = channels[name]
    return {
        layer.name: _count(
            layer,
            mapping,
            channels.get(layer.name, _inputs(network, layer, alive)),
            min(filters.get(layer.name, layer.out_channels), alive[network.writes[layer.name]]),
        )
        for layer in network.layers
    }


def _inputs(network: Network, layer: LayerSpec, alive: list[int]) -> int:
    """Live inputs of a layer; after flattening there are several per channel."""
    index = network.reads[layer.name]
    return layer.in_channels * alive[index] // network.groups[index].channels


def _count(layer: LayerSpec, mapping: Mapping, live_in: int, live_out: int) -> LayerCount:
    choice = mapping[layer.name]
    scheme = parse_scheme(choice.scheme)
    if scheme.removes == "weights":
        shape, groups = layer.live_shape(live_out, live_in), layer.live_groups(live_out)
        kept = kept_weights(scheme, choice.rate, shape, groups)
    else:
        kept = live_in * live_out * layer.kernel[0] * layer.kernel[1] // layer.groups
    return LayerCount(live_in, live_out, kept, kept * layer.out_shape[1] * layer.out_shape[2])


@dataclass(frozen=True)
class Live:
    """The live part of one layer: boolean arrays over its input channels and its filters.

    Attributes:
        inputs: Channels that are not always zero and that a live filter reads.
        outputs: Filters that somebody reads and whose result, after the batch norms that follow, is not always zero.
        given: Input channels that are not always zero, read or not.
    """

    inputs: Flags
    outputs: Flags
    given: Flags


def live_channels(network: Network, state: State) -> dict[str, Live]:
    """Find exactly what is alive from the zeros in the parameters.

    Args:
        network: The captured network.
        state: Its state dict: layers' ``weight`` and ``bias``, batch norms' ``weight``, ``bias``, ``running_mean``.

    Returns:
        Layer name -> live channels and filters, for all layers.

    Raises:
        PrunemapError: When a parameter is missing or has another shape.
    """
    return Liveness(network, state).channels()


class Liveness:
    """What is alive in a network, exactly from the zeros in its parameters; arguments and errors as ``live_channels``.

    Zeros are carried forward and needs carried backward, once each: neither depends on the other's later steps.
    """

    def __init__(self, network: Network, state: State) -> None:
        self._layers = {layer.name: layer for layer in network.layers}
        self._network = network
        self._state = state
        self._uses: dict[str, Flags] = {}  # (groups, filters, channels) of a layer node: weights that meet no zero
        self._zero: dict[str, Flags] = {}
        for node in network.nodes:
            self._zero[node.name] = self._forward(node)

    def channels(self) -> dict[str, Live]:
        """Layer name -> live channels and filters, for all layers."""
        needed = self._needed(with_zeros=False)
        return {
            node.target: Live(self._read(node, needed[node.name]), needed[node.name], ~self._zero[node.inputs[0]])
            for node in self._network.nodes
            if node.target is not None and node.target in self._layers
        }

    def values(self) -> dict[str, Flags]:
        """Node name -> boolean array over the channels (features after flattening) that its result has to have.

        Unlike ``Live.outputs`` this includes channels of zeros where an addition, the network's output or a function
        with f(0) != 0 has to see them.
        """
        return self._needed(with_zeros=True)

    def _read(self, node: Node, outputs: Flags) -> Flags:
        """Input channels of a layer node that its filters in ``outputs`` read."""
        uses = self._uses[node.name]
        return np.asarray((uses & outputs.reshape(len(uses), -1, 1)).any(axis=1).reshape(-1))

    def _needed(self, with_zeros: bool) -> dict[str, Flags]:
        """Channels of every node's result that are needed; ``with_zeros``: also where zeros must be seen as such."""
        zero, nodes = self._zero, self._network.nodes
        needed = {name: np.zeros_like(flags) for name, flags in zero.items()}
        last = nodes[-1].name
        needed[last] = np.ones_like(zero[last]) if with_zeros else ~zero[last]
        for node in reversed(nodes):
            for source in node.inputs:
                wanted = self._backward(node, needed[node.name], len(zero[source]))
                if not with_zeros and (node.op == "add" or not node.keeps_zero):
                    wanted = wanted & ~zero[source]
                needed[source] |= wanted
        return needed

    def _forward(self, node: Node) -> Flags:
        """Channels of the node's result that are zero whatever the input."""
        zeros = [self._zero[name] for name in node.inputs]
        if node.op == "input":
            return np.zeros(self._network.groups[0].channels, dtype=np.bool_)
        if node.target in self._layers:
            return self._through_layer(node, self._layers[node.target], zeros[0])
        if node.op == "batchnorm":
            return self._through_batchnorm(node, zeros[0])
        if not node.keeps_zero:
            return np.zeros_like(zeros[0])
        if node.op == "flatten":
            return np.repeat(zeros[0], self._flattened(node, len(zeros[0])))
        return np.asarray(np.logical_and.reduce(zeros))

    def _through_layer(self, node: Node, layer: LayerSpec, zero: Flags) -> Flags:
        filters, channels, height, width = layer.weight_shape
        weight = self._parameter(f"{layer.name}.weight", layer.weights)
        taps = _not_zero(weight).reshape(-1, height * width)
        there = taps[:, 0].copy()
        for tap in range(1, taps.shape[1]):  # faster than any(axis=1) over so few
            there |= taps[:, tap]
        uses = there.reshape(layer.groups, -1, channels) & ~zero.reshape(layer.groups, 1, channels)
        self._uses[node.name] = uses
        silent = ~uses.any(axis=2).reshape(-1)
        return silent & self._is_zero(f"{layer.name}.bias", filters) if layer.bias else silent

    def _through_batchnorm(self, node: Node, zero: Flags) -> Flags:
        scale, shift, mean = (
            self._is_zero(f"{node.target}.{part}", len(zero)) for part in ("weight", "bias", "running_mean")
        )
        return shift & (scale | (zero & mean))

    def _backward(self, node: Node, needed: Flags, channels: int) -> Flags:
        """Channels of the node's inputs that its ``needed`` results are made of."""
        if node.name in self._uses:
            return self._read(node, needed)
        if not node.keeps_zero:
            return np.ones(channels, dtype=np.bool_)
        if node.op == "flatten":
            return np.asarray(needed.reshape(channels, -1).any(axis=1))
        return needed & ~self._zero[node.name] if node.op == "batchnorm" else needed

    def _flattened(self, node: Node, channels: int) -> int:
        """Features per channel after flattening."""
        if node.shape:
            return node.shape[0] // channels
        readers = (n for n in self._network.nodes if node.name in n.inputs and n.target in self._layers)
        return next((self._layers[n.target or ""].in_channels // channels for n in readers), 1)

    def _is_zero(self, name: str, size: int) -> Flags:
        return ~_not_zero(self._parameter(name, size))

    def _parameter(self, name: str, size: int) -> torch.Tensor:
        if name not in self._state:
            raise PrunemapError(f"the state dict has no {name!r}, which the network needs")
        value = torch.as_tensor(self._state[name]).detach()
        if value.numel() != size:
            raise PrunemapError(f"{name!r} in the state dict has shape {tuple(value.shape)}, not {size} values")
        return value


def _not_zero(values: torch.Tensor) -> Flags:
    """Where there is no zero; numpy compares several times faster than torch, but does not know every type."""
    array = (values if values.dtype == torch.float32 else values != 0).cpu().numpy()
    return np.asarray(array != 0)
