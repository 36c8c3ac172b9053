"""From a captured network and its parameters to few fused operations on compact values.

Batch norms are folded into the convolution before them, clamps and residual additions into the one that produces their
input; a linear layer is a convolution whose kernel covers its whole input; a batch norm that cannot be folded is a 1x1
depthwise convolution. Flattening changes nothing: what comes after it is still seen as the map, up to the linear layer
that reads it. Channels that the zeros make dead are left out of every value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping as AbstractMapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from ..pruning.errors import PrunemapError
from ..pruning.liveness import Live, Liveness
from ..pruning.network import LayerSpec, Network, Node
from .operations import CLAMPS, NO_CLAMP, Convolution, Floats, Lowered, Operation, Pooling, Value

MAX_STRIDE, MAX_POOL = 2**31 - 1, 2**15  # what the engine takes; a pool may also be as large as its input


def lower(network: Network, state: AbstractMapping[str, torch.Tensor]) -> Lowered:
    """Fuse ``network``'s operations and drop what its parameters' zeros make dead.

    Args:
        network: From ``capture``.
        state: The model's state dict.

    Raises:
        PrunemapError: When a parameter is missing or has another shape, or when flattened maps of different shapes are
            added.
    """
    return _Lowering(network, state).lower()


class _Lowering:
    def __init__(self, network: Network, state: AbstractMapping[str, torch.Tensor]) -> None:
        self._network = network
        self._state = state
        liveness = Liveness(network, state)
        self._live: dict[str, Live] = liveness.channels()
        self._layers = {layer.name: layer for layer in network.layers}
        self._unflattened = _unflattened(network)
        readers = [node for node in network.nodes if node.op != "flatten"]
        seen = [*(name for node in readers for name in node.inputs), network.nodes[-1].name]
        self._uses = Counter(self._unflattened[name] for name in seen)
        self._values = compact_values(network, liveness.values())
        self._operations: dict[str, Operation] = {}
        self._alias: dict[str, str] = {}  # node -> the operation (or input) whose value it is after fusing
        self._order: dict[str, int] = {}

    def lower(self) -> Lowered:
        handlers = {
            "conv": self._layer,
            "linear": self._layer,
            "batchnorm": self._batchnorm,
            "activation": self._activation,
            "add": self._add,
            "maxpool": self._pool,
            "avgpool": self._pool,
            "globalavgpool": self._pool,
        }
        source = self._network.nodes[0].name
        self._alias[source] = source
        self._order[source] = -1
        for node in self._network.nodes[1:]:
            if node.op in handlers:
                handlers[node.op](node)
            else:  # flatten: the same numbers under another name
                self._alias[node.name] = self._alias[node.inputs[0]]
        values = {name: self._values[name] for name in (source, *self._operations)}
        return Lowered(tuple(self._operations.values()), values, source, self._alias[self._network.nodes[-1].name])

    def _emit(self, operation: Operation) -> None:
        _check_window(operation, self._values[operation.inputs[0]].shape)
        self._operations[operation.name] = operation
        self._alias[operation.name] = operation.name
        self._order[operation.name] = len(self._order)

    def _amend(self, node: Node, producer: str, operation: Operation) -> None:
        """Let ``node``'s value be that of the changed operation ``producer``."""
        self._operations[producer] = operation
        self._alias[node.name] = producer

    def _open(self, name: str, kinds: tuple[str, ...]) -> Operation | None:
        """The operation that makes node ``name``, when nothing else sees its result and its epilogue is empty."""
        operation = self._operations.get(self._alias[name])
        if operation is None or operation.kind not in kinds or self._uses[self._unflattened[name]] != 1:
            return None
        return operation if operation.clamp == NO_CLAMP else None

    def _layer(self, node: Node) -> None:
        assert node.target is not None
        layer = self._layers[node.target]
        source = self._alias[node.inputs[0]]
        convolution = self._compact(layer, self._values[source], self._values[node.name])
        self._emit(Operation(node.name, "convolution", layer.name, (source,), convolution=convolution))

    def _compact(self, layer: LayerSpec, source: Value, target: Value) -> Convolution:
        filters = np.flatnonzero(target.channels >= 0)
        kernel = layer.kernel if layer.kind != "linear" else source.shape[1:]
        weight = self._parameter(f"{layer.name}.weight").reshape(layer.out_channels, -1, *kernel)
        bias = self._parameter(f"{layer.name}.bias") if layer.bias else np.zeros(layer.out_channels, np.float32)
        live = self._live[layer.name].inputs.reshape(len(source.channels), -1).any(axis=1)
        inputs = np.where(live, source.channels, -1).reshape(layer.groups, -1)
        groups = filters // (layer.out_channels // layer.groups)
        if len(filters) < len(weight):
            weight = weight[filters]
        unread = ~self._live[layer.name].outputs[filters]
        if unread.any():  # kept only to stand beside the channels of another producer of the sum
            weight = weight * ~unread[:, None, None, None]
        if layer.groups == 1 and (inputs < 0).any():
            read = np.flatnonzero(inputs[0] >= 0)
            weight, inputs = weight[:, read], inputs[:, read]
        return Convolution(
            np.ascontiguousarray(weight), bias[filters], groups, inputs, layer.stride, layer.padding, layer.dilation
        )

    def _batchnorm(self, node: Node) -> None:
        scale, shift = self._affine(node)
        live = np.flatnonzero(self._values[node.name].channels >= 0)
        scale, shift = scale[live], shift[live]
        before = self._open(node.inputs[0], ("convolution",))
        if before is not None and before.residual is None and before.convolution is not None:
            old = before.convolution
            weight = old.weight * scale.astype(np.float32)[:, None, None, None]
            bias = (old.bias * scale + shift).astype(np.float32)
            self._amend(node, before.name, replace(before, convolution=replace(old, weight=weight, bias=bias)))
            return
        source = self._alias[node.inputs[0]]
        convolution = Convolution(
            scale.astype(np.float32).reshape(-1, 1, 1, 1), shift.astype(np.float32), live,
            self._values[source].channels[:, None], (1, 1), (0, 0), (1, 1),
        )  # fmt: skip
        self._emit(Operation(node.name, "convolution", None, (source,), convolution=convolution))

    def _affine(self, node: Node) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Scale and shift of a batch norm at inference."""
        mean = self._parameter(f"{node.target}.running_mean").astype(np.float64)
        variance = self._parameter(f"{node.target}.running_var").astype(np.float64)
        eps = node.attr("eps")
        assert isinstance(eps, int | float)
        scale = self._parameter(f"{node.target}.weight") / np.sqrt(variance + eps)
        return scale, self._parameter(f"{node.target}.bias") - mean * scale

    def _activation(self, node: Node) -> None:
        function = str(node.attr("function"))
        source = self._alias[node.inputs[0]]
        if function not in CLAMPS:
            self._emit(Operation(node.name, "function", None, (source,), function=function))
            return
        before = self._open(node.inputs[0], ("convolution", "add"))
        if before is None:
            self._emit(Operation(node.name, "add", None, (source,), clamp=CLAMPS[function]))
        else:
            self._amend(node, before.name, replace(before, clamp=CLAMPS[function]))

    def _add(self, node: Node) -> None:
        """Fuse into the later of the two producers when it is a convolution that only this addition reads."""
        sources = [self._alias[name] for name in node.inputs]
        late = max(range(2), key=lambda i: self._order[sources[i]])
        before = self._open(node.inputs[late], ("convolution",))
        if before is None or before.residual is not None or sources[0] == sources[1]:
            self._emit(Operation(node.name, "add", None, tuple(sources)))
        else:
            self._amend(node, before.name, replace(before, residual=sources[1 - late]))

    def _pool(self, node: Node) -> None:
        source = self._alias[node.inputs[0]]
        if node.op == "globalavgpool":
            size = self._values[source].shape[1:]
            pooling = Pooling(False, size, size, (0, 0), False)
        else:
            kernel, stride, padding = (_pair(node, key) for key in ("kernel", "stride", "padding"))
            count = node.op == "avgpool" and bool(node.attr("count_include_pad"))
            pooling = Pooling(node.op == "maxpool", kernel, stride, padding, count)
        self._emit(Operation(node.name, "pool", None, (source,), pooling=pooling))

    def _parameter(self, name: str) -> Floats:
        return np.asarray(self._state[name].detach().to(torch.float32).cpu().numpy())


def _check_window(operation: Operation, shape: tuple[int, int, int]) -> None:
    """Refuse windows beyond what the engine takes."""
    kernel = operation.pooling.kernel if operation.pooling is not None else (1, 1)
    window = operation.convolution or operation.pooling
    stride = window.stride if window is not None else (1, 1)
    if max(stride) > MAX_STRIDE or any(k > max(MAX_POOL, n) for k, n in zip(kernel, shape[1:], strict=True)):
        name = operation.layer or operation.name
        raise PrunemapError(
            f"{name}: stride {stride}, pooling window {kernel}: strides may be at most {MAX_STRIDE}, windows as large "
            f"as the input or {MAX_POOL}"
        )


def _pair(node: Node, key: str) -> tuple[int, int]:
    value = node.attr(key)
    assert isinstance(value, tuple)
    return value[0], value[1]


def _unflattened(network: Network) -> dict[str, str]:
    """For every node the one whose result it has: itself, or what a flattening flattens."""
    found: dict[str, str] = {}
    for node in network.nodes:
        found[node.name] = found[node.inputs[0]] if node.op == "flatten" else node.name
    return found


def _maps(network: Network) -> dict[str, tuple[int, int, int]]:
    """(channels, height, width) of every node's result; of a flattened one, as it was before."""
    maps: dict[str, tuple[int, int, int]] = {}
    for node in network.nodes:
        before = list(dict.fromkeys(maps[name] for name in node.inputs))
        if node.op == "add" and len(before) > 1:
            raise PrunemapError(
                f"{node.name}: sum of flattened maps of shapes {before[0]} and {before[1]}; only maps of equal shape"
            )
        if len(node.shape) == 1 and node.op != "linear":
            maps[node.name] = before[0]
        else:
            channels, height, width = (*node.shape, 1, 1)[:3]
            maps[node.name] = channels, height, width
    return maps


def compact_values(network: Network, needed: dict[str, npt.NDArray[np.bool_]]) -> dict[str, Value]:
    """Values of all nodes, given what ``Liveness.values`` tells.

    Those that share channels by position keep the same ones, so that they can be added.
    """
    maps = _maps(network)
    parent = {node.name: node.name for node in network.nodes}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    for node in network.nodes:
        if node.op not in ("input", "conv", "linear"):
            for name in node.inputs:
                parent[root(name)] = root(node.name)
    kept: dict[str, npt.NDArray[np.bool_]] = {}
    for node in network.nodes:
        key = root(node.name)
        own = needed[node.name].reshape(maps[node.name][0], -1).any(axis=1)
        kept[key] = np.logical_or(own, kept.get(key, node.op == "input"))  # callers give whole images
    return {node.name: _value(maps[node.name], kept[root(node.name)]) for node in network.nodes}


def _value(shape: tuple[int, int, int], kept: npt.NDArray[np.bool_]) -> Value:
    if not kept.any():  # a value must have a channel; nobody looks at this one
        kept = np.arange(len(kept)) == 0
    channels = np.where(kept, np.cumsum(kept) - 1, -1)
    return Value((int(kept.sum()), *shape[1:]), channels)
