"""From a module to a Network: traced by torch.fx, with the shapes that an example input leads to."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from .errors import PrunemapError
from .grouping import channel_groups
from .network import LayerSpec, Network, Node
from .operations import (
    ADDITIONS,
    CALLS,
    IDENTITY,
    IN_PLACE_ADDITIONS,
    MODULES,
    SIZE_METHODS,
    conv_padding,
    supported,
    two,
)
from .tracing import Trace, trace_module


def capture(model: nn.Module, example_input: torch.Tensor) -> Network:
    """Read the structure of ``model``.

    The model is left as it is: parameters, buffers, training flags and global random states. Sizes are those that its
    values have, in evaluation mode, for the first image of ``example_input``.

    Args:
        model: Any module that torch.fx can trace, made of the supported modules, functions and additions.
        example_input: (N, C, H, W) tensor.

    Returns:
        The network: layers, operations, channel groups and shapes.

    Raises:
        PrunemapError: When the model cannot be traced or run, or holds something that is not supported; the message
            names the module by its qualified name.
    """
    if example_input.dim() != 4:
        raise PrunemapError(f"example input of shape {tuple(example_input.shape)}: expected (N, C, H, W)")
    return _capture(model, example_input[:1])


def trace(model: nn.Module) -> Network:
    """Read the structure of ``model`` without running it: heights and widths are 0, and so are MACs.

    Raises:
        PrunemapError: As ``capture``.
    """
    return _capture(model, None)


def _capture(model: nn.Module, example: torch.Tensor | None) -> Network:
    traced = trace_module(model, example)
    builder = _Builder(model, traced)
    for node in traced.nodes:
        builder.add(node)
    return builder.network()


class _Builder:
    """Turns fx nodes into our nodes and layers, one by one in execution order."""

    def __init__(self, model: nn.Module, traced: Trace) -> None:
        self._model = model
        self._traced = traced
        self._nodes: dict[str, Node] = {}
        self._layers: dict[str, LayerSpec] = {}
        self._values: dict[str, str] = {}  # fx node -> the node of ours that holds its value
        self._sizes: set[str] = set()  # fx nodes that are computed from sizes alone
        self._owners: dict[int, str] = {}  # id of a parameter -> the module that was read with it
        self._output = ""
        self._readers: dict[str, Callable[[fx.Node], None]] = {
            "placeholder": self._read_input,
            "call_module": self._read_module,
            "call_function": self._read_call,
            "call_method": self._read_call,
            "get_attr": self._read_attribute,
            "output": self._read_output,
        }

    def add(self, node: fx.Node) -> None:
        """Read one fx node; nodes come in execution order."""
        if self._is_size(node):
            self._sizes.add(node.name)
            return
        try:
            self._readers[node.op](node)
        except PrunemapError as error:
            raise PrunemapError(f"cannot capture {self._where(node)}: {error}") from None

    def network(self) -> Network:
        """What was read, without what the output does not depend on."""
        needed = {self._output}
        for node in reversed(self._nodes.values()):
            if node.name in needed:
                needed.update(node.inputs)
        nodes = tuple(node for node in self._nodes.values() if node.name in needed)
        if nodes[0].op != "input":
            raise PrunemapError("the network's output does not depend on its input")
        targets = {node.target for node in nodes}
        layers = tuple(layer for layer in self._layers.values() if layer.name in targets)
        if not layers:
            raise PrunemapError(f"{type(self._model).__name__} has no convolution or linear layer to prune")
        return Network(layers, nodes, channel_groups(nodes, layers), nodes[0].shape)

    def _read_input(self, node: fx.Node) -> None:
        if "input" not in {known.op for known in self._nodes.values()}:
            self._add_node(node, Node(node.name, "input", (), None, (), self._shape(node)))
        elif node.users:
            raise PrunemapError("a second input; only networks of one input are supported")

    def _read_output(self, node: fx.Node) -> None:
        if not isinstance(node.args[0], fx.Node):
            raise PrunemapError("it is not one tensor; only networks of one output are supported")
        self._output = self._value(node.args[0])

    def _read_attribute(self, node: fx.Node) -> None:
        if node.users:
            raise PrunemapError("a parameter or buffer used outside a supported module")

    def _read_module(self, node: fx.Node) -> None:
        target = str(node.target)
        module = self._model.get_submodule(target)
        if type(module) not in MODULES:
            raise PrunemapError(f"not supported; supported are {supported()}")
        for parameter in module.parameters():
            owner = self._owners.setdefault(id(parameter), target)
            if owner != target or target in {known.target for known in self._nodes.values()}:
                raise PrunemapError(f"its parameters are used twice (also by {owner!r}): give each use its own module")
        self._append(node, (module,), target if module.state_dict() else None)

    def _read_call(self, node: fx.Node) -> None:
        operation: Any = node.target
        if operation in ADDITIONS:
            self._read_addition(node)
            return
        if operation not in CALLS:
            raise PrunemapError(f"not supported; supported are + and the functions for {supported()}")
        arguments = fx.map_arg(node.args[1:], self._concrete)
        options = fx.map_arg({k: v for k, v in node.kwargs.items() if k != "input"}, self._concrete)
        modules = CALLS[operation](*arguments, **options)
        self._append(node, modules, None)

    def _read_addition(self, node: fx.Node) -> None:
        terms = list(node.args[:2])
        if len(terms) != 2 or node.kwargs or not all(isinstance(term, fx.Node) for term in terms):
            raise PrunemapError("only the sum of two tensors is supported: x + y")
        names = tuple(self._value(term) for term in terms)
        if len({self._nodes[name].shape for name in names}) > 1:
            raise PrunemapError(f"terms of different shapes, {' and '.join(str(self._nodes[n].shape) for n in names)}")
        self._add_node(node, Node(node.name, "add", names, None, (), self._shape(node)))
        if node.target in IN_PLACE_ADDITIONS:
            self._overwrite(names[0], node.name)

    def _append(self, node: fx.Node, modules: tuple[nn.Module, ...], target: str | None) -> None:
        """Add the operations of ``modules``, applied one after the other."""
        source = node.args[0] if node.args else node.kwargs.get("input")
        if not isinstance(source, fx.Node):
            raise PrunemapError("its input is not a tensor of the network")
        value = self._value(source)
        for index, module in enumerate(modules):
            op, attrs = MODULES[type(module)](module)
            if op == IDENTITY:
                continue
            last = index == len(modules) - 1
            name = node.name if last else f"{node.name}_{index}"
            before = self._nodes[value].shape
            # Only a global average has something after it: mean([2, 3]) is one, and a flattening.
            shape = self._shape(node) if last else (*before[:1], *[1] * (len(before) - 1))
            if op == "flatten" and before and shape != (math.prod(before),):
                raise PrunemapError(f"from {before} to {shape}; only flattening all but the batch is supported")
            if isinstance(module, nn.Conv2d | nn.Linear) and target is not None:
                self._layers[target] = _layer(target, module, before, shape)
            self._nodes[name] = Node(name, op, (value,), target, tuple(sorted(attrs.items())), shape)
            if getattr(module, "inplace", False):
                self._overwrite(value, name)
            value = name
        self._values[node.name] = value

    def _add_node(self, node: fx.Node, ours: Node) -> None:
        self._nodes[ours.name] = ours
        self._values[node.name] = ours.name

    def _overwrite(self, old: str, new: str) -> None:
        """An operation in place: whoever reads the old value from now on reads the new one."""
        self._values = {name: new if value == old else value for name, value in self._values.items()}

    def _value(self, node: Any) -> str:
        if node.name not in self._values:
            raise PrunemapError(f"{node.name!r} is not a tensor of the network")
        return self._values[node.name]

    def _is_size(self, node: fx.Node) -> bool:
        """Whether the node asks a tensor for its size, or computes with such numbers."""
        asks = node.op == "call_method" and node.target in SIZE_METHODS
        asks = asks or (node.target is getattr and node.args[1] == "shape")
        inputs = node.all_input_nodes
        return asks or (node.op == "call_function" and bool(inputs) and all(i.name in self._sizes for i in inputs))

    def _concrete(self, node: fx.Node) -> Any:
        """The value of a size in the recorded run; 0 where there was none."""
        if node.name not in self._sizes:
            raise PrunemapError(f"its argument {node.name!r} is a tensor; only numbers and sizes are supported")
        return self._traced.sizes.get(node.name, 0)

    def _shape(self, node: fx.Node) -> tuple[int, ...]:
        return self._traced.shapes.get(node.name, ())[1:]

    def _where(self, node: fx.Node) -> str:
        """The module by its qualified name, or the function with the module that calls it."""
        if node.op == "call_module":
            target = str(node.target)
            return f"module {target!r} ({type(self._model.get_submodule(target)).__name__})"
        path, kind = self._traced.scopes.get(node.name, ("", None))
        caller = f"{path!r} ({kind.__name__})" if path and kind else type(self._model).__name__
        called = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
        return f"{called!r} in {caller}"


def _layer(name: str, module: nn.Conv2d | nn.Linear, before: tuple[int, ...], after: tuple[int, ...]) -> LayerSpec:
    bias = module.bias is not None
    if isinstance(module, nn.Linear):
        if len(before) > 1:
            raise PrunemapError(f"its input has shape {before}; flatten it first")
        inputs, outputs = module.in_features, module.out_features
        return LayerSpec(
            name=name, kind="linear", in_channels=inputs, out_channels=outputs, kernel=(1, 1), stride=(1, 1),
            padding=(0, 0), dilation=(1, 1), groups=1, in_shape=(inputs, 1, 1), out_shape=(outputs, 1, 1), bias=bias,
        )  # fmt: skip
    depthwise = module.groups == module.in_channels > 1
    return LayerSpec(
        name=name,
        kind="depthwise" if depthwise else "conv",
        in_channels=module.in_channels,
        out_channels=module.out_channels,
        kernel=two(module.kernel_size),
        stride=two(module.stride),
        padding=conv_padding(module),
        dilation=two(module.dilation),
        groups=module.groups,
        in_shape=_sides(module.in_channels, before),
        out_shape=_sides(module.out_channels, after),
        bias=bias,
    )


def _sides(channels: int, shape: tuple[int, ...]) -> tuple[int, int, int]:
    return (channels, *two(shape[1:])) if shape else (channels, 0, 0)
