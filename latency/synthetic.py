"""A torch module made from a Network alone: its structure with random weights, for measuring without training.

Weights are drawn from a normal distribution (He's scale, so that values stay finite in deep networks). Their magnitudes
are independent, hence the zeros that pruning makes are spread evenly: a trained network of the same rate may have
fuller and emptier filters. Biases and batch norms are random too, as training leaves them: with the zero shifts of a
fresh network, a filter that happens to be empty would count as removed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..pruning.network import LayerSpec, Network, Node

Operation = Callable[..., Tensor]

SHIFT = 0.1
"""Standard deviation of biases and of batch norms' shifts and means."""

_ACTIVATIONS: dict[str, Operation] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "hardswish": F.hardswish,
    "silu": F.silu,
}


def _activation(node: Node) -> Operation:
    return _ACTIVATIONS[str(node.attr("function"))]


def _maxpool(node: Node) -> Operation:
    ceil = bool(node.attr("ceil_mode"))
    return partial(F.max_pool2d, **_window(node), ceil_mode=ceil)


def _avgpool(node: Node) -> Operation:
    return partial(F.avg_pool2d, **_window(node), count_include_pad=bool(node.attr("count_include_pad")))


def _window(node: Node) -> dict[str, Any]:
    return {"kernel_size": node.attr("kernel"), "stride": node.attr("stride"), "padding": node.attr("padding")}


_STATELESS: dict[str, Callable[[Node], Operation]] = {
    "activation": _activation,
    "add": lambda node: torch.add,
    "maxpool": _maxpool,
    "avgpool": _avgpool,
    "globalavgpool": lambda node: partial(F.adaptive_avg_pool2d, output_size=1),
    "flatten": lambda node: partial(torch.flatten, start_dim=1),
}


class SyntheticModule(nn.Module):
    """Runs the nodes of a network; layers and batch norms carry their qualified names."""

    def __init__(self, network: Network, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self._nodes = network.nodes
        self._operations: dict[str, Operation] = {}
        for node in network.nodes[1:]:
            self._operations[node.name] = self._make(network, node, generator)

    def forward(self, x: Tensor) -> Tensor:
        """Network output for a batch of shape (N, channels, height, width)."""
        values = {self._nodes[0].name: x}
        for node in self._nodes[1:]:
            values[node.name] = self._operations[node.name](*(values[name] for name in node.inputs))
        return values[self._nodes[-1].name]

    def _make(self, network: Network, node: Node, generator: torch.Generator) -> Operation:
        if node.target is None or node.op in _STATELESS:
            return _STATELESS[node.op](node)
        module = (
            _batchnorm(node, generator) if node.op == "batchnorm" else _layer(network.layer(node.target), generator)
        )
        *path, leaf = node.target.split(".")
        parent: nn.Module = self
        for part in path:
            if part not in parent._modules:
                parent.add_module(part, nn.Module())
            parent = parent.get_submodule(part)
        parent.add_module(leaf, module)
        return module


def synthesise(network: Network, seed: int = 0) -> SyntheticModule:
    """Build a module with the structure of ``network`` and seeded random weights, in evaluation mode.

    ``capture`` of the result gives the layers of ``network`` back. Global random states are not touched.
    """
    return SyntheticModule(network, seed).eval()


def _layer(layer: LayerSpec, generator: torch.Generator) -> nn.Module:
    # The constructors' own initialisation would draw from the global generator.
    skip_init = cast("Callable[..., nn.Module]", nn.utils.skip_init)
    module: nn.Module
    if layer.kind == "linear":
        module = skip_init(nn.Linear, layer.in_channels, layer.out_channels, bias=layer.bias)
    else:
        module = skip_init(
            nn.Conv2d, layer.in_channels, layer.out_channels, layer.kernel, stride=layer.stride, padding=layer.padding,
            dilation=layer.dilation, groups=layer.groups, bias=layer.bias,
        )  # fmt: skip
    fan_in = layer.weights // layer.out_channels
    with torch.no_grad():
        cast("Tensor", module.weight).normal_(0.0, (2.0 / fan_in) ** 0.5, generator=generator)
        if layer.bias:
            cast("Tensor", module.bias).normal_(0.0, SHIFT, generator=generator)
    return module


def _batchnorm(node: Node, generator: torch.Generator) -> nn.Module:
    module = nn.BatchNorm2d(node.shape[0], eps=float(cast("float", node.attr("eps"))))
    with torch.no_grad():
        for values in (module.bias, cast("Tensor", module.running_mean)):
            values.normal_(0.0, SHIFT, generator=generator)
    return module
