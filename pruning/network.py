"""A captured network: layers, shapes, MACs and channel groups, without weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from .errors import unknown_name

LayerKind = Literal["conv", "depthwise", "linear"]
Attr = int | float | str | tuple[int, ...]

ZERO_PRESERVING = frozenset({"relu", "relu6", "tanh", "hardswish", "silu"})
"""Activations with f(0) = 0."""


@dataclass(frozen=True)
class LayerSpec:
    """One prunable layer: a convolution, a depthwise convolution or a linear layer.

    Attributes:
        name: The module's qualified name.
        kind: ``depthwise`` is a convolution with as many groups as input channels (and more than one).
        in_channels: Input channels (``in_features`` of a linear layer).
        out_channels: Filters (``out_features`` of a linear layer).
        kernel: Kernel height and width; (1, 1) for a linear layer.
        stride: Vertical and horizontal stride.
        padding: Zero rows above and below, zero columns left and right.
        dilation: Vertical and horizontal dilation.
        groups: Convolution groups.
        in_shape: (channels, height, width) of one input; a linear layer's is (in_features, 1, 1).
        out_shape: (channels, height, width) of one output.
        bias: Whether the layer has a bias of its own.
    """

    name: str
    kind: LayerKind
    in_channels: int
    out_channels: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    in_shape: tuple[int, int, int]
    out_shape: tuple[int, int, int]
    bias: bool

    @cached_property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """(filters, input channels per group, kernel height, kernel width); a linear weight is seen as 1x1."""
        return (self.out_channels, self.in_channels // self.groups, *self.kernel)

    @cached_property
    def weights(self) -> int:
        """Number of weights, without bias."""
        return math.prod(self.weight_shape)

    @property
    def follows(self) -> bool:
        """Whether it is a depthwise layer with one filter per channel: its channels are those of the layer before."""
        return self.kind == "depthwise" and self.in_channels == self.out_channels

    def live_shape(self, live_out: int, live_in: int) -> tuple[int, int, int, int]:
        """``weight_shape`` without dead filters and channels."""
        return (live_out, 1 if self.follows else live_in // self.groups, *self.kernel)

    def live_groups(self, live_out: int) -> int:
        """Convolution groups without dead filters: those of a depthwise layer go with its filters."""
        return live_out if self.follows else self.groups

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one input, all weights kept."""
        return self.weights * self.out_shape[1] * self.out_shape[2]


@dataclass(frozen=True)
class Node:
    """One operation of the captured graph.

    Attributes:
        name: Unique in the graph.
        op: ``input``, ``conv``, ``linear``, ``batchnorm``, ``activation``, ``add``, ``maxpool``, ``avgpool``,
            ``globalavgpool`` or ``flatten``.
        inputs: Names of the nodes whose results it takes, in order.
        target: Qualified name of the module that holds its parameters, or None.
        attrs: Sorted (key, value) pairs: ``activation`` has ``function``; pools have ``kernel``, ``stride``,
            ``padding`` and, for average pools, ``count_include_pad``; ``maxpool`` has ``ceil_mode``; ``batchnorm``
            has ``eps``.
        shape: Shape of its result for one input, without the batch dimension.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    target: str | None
    attrs: tuple[tuple[str, Attr], ...]
    shape: tuple[int, ...]

    @property
    def keeps_zero(self) -> bool:
        """Whether a channel that is zero stays zero through it (a batch norm's does when it is silenced with it)."""
        return self.op != "activation" or self.attr("function") in ZERO_PRESERVING

    def attr(self, key: str) -> Attr:
        """The attribute called ``key``; KeyError when there is none."""
        return dict(self.attrs)[key]


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that can only be removed together.

    Every layer in ``producers`` writes channel i of the group, every layer in ``consumers`` reads it, depthwise layers
    in ``followers`` carry it through. Channels of the network's input and output are ``fixed``: never removed.

    Attributes:
        producers: Layers whose filters are the group's channels. More than one in a residual group.
        consumers: Layers whose input channels are the group's channels (a linear layer after a flatten has
            ``in_features / channels`` inputs per channel).
        followers: Depthwise layers inside the group.
        batchnorms: Qualified names of the batch norms inside the group.
        channels: Number of channels.
        fixed: Whether the channels must stay because they are the network's input or output, pass through a
            function with f(0) != 0, or enter or leave a grouped convolution.
    """

    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    followers: tuple[str, ...]
    batchnorms: tuple[str, ...]
    channels: int
    fixed: bool


@dataclass(frozen=True)
class Network:
    """The structure of a module: hashable, picklable, without weights.

    Attributes:
        layers: Prunable layers in execution order.
        nodes: All operations in execution order; the first is the input, the last the output.
        groups: Channel groups, in order of their first producer.
        input_shape: (channels, height, width) of one input.
    """

    layers: tuple[LayerSpec, ...]
    nodes: tuple[Node, ...]
    groups: tuple[ChannelGroup, ...]
    input_shape: tuple[int, ...]

    @cached_property
    def _by_name(self) -> dict[str, LayerSpec]:
        return {layer.name: layer for layer in self.layers}

    def layer(self, name: str) -> LayerSpec:
        """The layer called ``name``; PrunemapError with the nearest names when there is none."""
        if name not in self._by_name:
            raise unknown_name("layer", name, self._by_name)
        return self._by_name[name]

    @cached_property
    def reads(self) -> dict[str, int]:
        """Layer name -> index in ``groups`` of the channels it reads."""
        return {name: i for i, group in enumerate(self.groups) for name in (*group.consumers, *group.followers)}

    @cached_property
    def writes(self) -> dict[str, int]:
        """Layer name -> index in ``groups`` of the channels it writes."""
        return {name: i for i, group in enumerate(self.groups) for name in (*group.producers, *group.followers)}

    @cached_property
    def batchnorms(self) -> dict[str, tuple[str, ...]]:
        """Layer name -> the batch norms that see its output alone: before any addition or further layer."""
        owner: dict[str, str] = {}
        found: dict[str, list[str]] = {layer.name: [] for layer in self.layers}
        for node in self.nodes:
            if node.target in found:
                owner[node.name] = node.target
            elif len(node.inputs) == 1 and node.inputs[0] in owner:
                owner[node.name] = owner[node.inputs[0]]
                if node.op == "batchnorm" and node.target is not None:
                    found[owner[node.name]].append(node.target)
        return {name: tuple(names) for name, names in found.items()}

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all layers for one input."""
        return sum(layer.macs for layer in self.layers)

    @property
    def weights(self) -> int:
        """Weights of all layers, without biases."""
        return sum(layer.weights for layer in self.layers)
