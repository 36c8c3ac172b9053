"""One trace and one run of a module by torch.fx, which leave it as it is."""

from __future__ import annotations

from collections.abc import Iterator
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
    """Trace ``model`` in evaluation mode, and run it once on ``example`` if there is one.

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
    """Runs the graph and keeps the shapes of tensors and all other results."""

    def __init__(self, model: nn.Module, graph: fx.Graph) -> None:
        super().__init__(fx.GraphModule(model, graph))
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.sizes: dict[str, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, torch.Tensor):
            self.shapes[n.name] = tuple(result.shape)
        else:
            self.sizes[n.name] = result
        return result
