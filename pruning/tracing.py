"""One trace of a module by torch.fx and the shapes that its values have, which leave it as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from .errors import PrunemapError


@dataclass(frozen=True)
class Trace:
    """What torch.fx saw of a module.

    Attributes:
        nodes: The operations in execution order.
        scopes: fx node -> qualified name and class of the module whose forward made it.
        shapes: fx node -> shape of its result, batch first; empty when the module was not run.
        sizes: fx node -> its result where that is not a tensor; empty when the module was not run.
    """

    nodes: tuple[fx.Node, ...]
    scopes: dict[str, tuple[str, Any]]
    shapes: dict[str, tuple[int, ...]]
    sizes: dict[str, Any]


def trace_module(model: nn.Module, example: torch.Tensor | None) -> Trace:
    """Trace ``model`` in evaluation mode, and find the shapes that all values have for ``example`` if there is one.

    Parameters, buffers, training flags and global random states stay as they are.

    Raises:
        PrunemapError: When the model cannot be traced, or cannot be run on ``example``.
    """
    with _undisturbed(model), torch.no_grad():
        tracer = fx.Tracer()
        try:
            graph = tracer.trace(model)
        except Exception as error:  # Tracing runs the user's forward, which may raise anything.
            raise PrunemapError(f"cannot trace {type(model).__name__}: {_first_line(error)}") from error
        recorder = _Recorder(model, graph)
        if example is not None:
            try:
                recorder.run(example)
            except Exception as error:  # Whatever the user's modules raise on this input.
                where = f"running {type(model).__name__} on an input of shape {tuple(example.shape)}"
                raise PrunemapError(f"{where}: {_first_line(error)}") from error
    return Trace(tuple(graph.nodes), dict(tracer.node_name_to_scope), recorder.shapes, recorder.sizes)


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; training flags and random states as they were afterwards."""
    flags = {module: module.training for module in model.modules()}
    with torch.random.fork_rng(devices=[]):
        try:
            model.eval()
            yield
        finally:
            for module, training in flags.items():
                module.training = training


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class _Recorder(fx.Interpreter):
    """Runs the graph and keeps the shapes of tensors and all other results.

    Only shapes matter, so modules whose result's shape is known from their input's are not computed.
    """

    def __init__(self, model: nn.Module, graph: fx.Graph) -> None:
        super().__init__(model, graph=graph)
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.sizes: dict[str, Any] = {}

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        module = self.fetch_attr(target)
        shape = _result_shape(module, *args) if len(args) == 1 and not kwargs else None
        return module(*args, **kwargs) if shape is None else args[0].new_empty(shape)

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, torch.Tensor):
            self.shapes[n.name] = tuple(result.shape)
        else:
            self.sizes[n.name] = result
        return result


def _result_shape(module: nn.Module, value: Any) -> tuple[int, ...] | None:
    """Shape of what ``module`` makes of ``value``; None where it has to be run, be it to learn what it objects to."""
    rule = _SHAPES.get(type(module))
    hooked = module._forward_hooks or module._forward_pre_hooks
    if rule is None or hooked or not isinstance(value, torch.Tensor):
        return None
    if any(parameter.dtype != value.dtype for parameter in module.parameters()):
        return None
    return rule(module, tuple(value.shape))


_FAR = 2**31  # from here on torch may refuse what arithmetic allows


def _conv_shape(module: Any, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    if len(shape) != 4 or shape[1] != module.in_channels or isinstance(module.padding, str):
        return None
    settings = [*zip(shape[2:], module.kernel_size, module.stride, module.padding, module.dilation, strict=True)]
    if max(map(max, settings)) >= _FAR:
        return None
    height, width = [(n + 2 * pad - dilation * (k - 1) - 1) // stride + 1 for n, k, stride, pad, dilation in settings]
    zeros = module.padding_mode == "zeros" and min(height, width) > 0
    return (shape[0], module.out_channels, height, width) if zeros else None


def _linear_shape(module: Any, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    return (*shape[:-1], module.out_features) if shape and shape[-1] == module.in_features else None


def _batchnorm_shape(module: Any, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    return shape if len(shape) == 4 and shape[1] == module.num_features else None


_SHAPES: dict[type[nn.Module], Callable[[nn.Module, tuple[int, ...]], tuple[int, ...] | None]] = {
    nn.Conv2d: _conv_shape,
    nn.Linear: _linear_shape,
    nn.BatchNorm2d: _batchnorm_shape,
    nn.ReLU: lambda module, shape: shape,
    nn.ReLU6: lambda module, shape: shape,
}
"""Shapes of results of the modules that most time would be spent in; None where the module objects."""
