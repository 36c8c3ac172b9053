"""compile_network: a pruned module becomes a program of sparse kernels that runs in one call."""

from __future__ import annotations

import os
from collections.abc import Mapping as AbstractMapping
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TypeVar, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ..pruning.capture import capture
from ..pruning.errors import PrunemapError, unknown_name
from ..pruning.network import Network
from . import _engine
from .build import Step, build
from .lowering import lower
from .tune import choose

Floats = npt.NDArray[np.float32]
Image = TypeVar("Image", bound="Floats | torch.Tensor")


def isas() -> tuple[str, ...]:
    """Instruction sets that this CPU supports, best first."""
    return tuple(_engine.supported_isas())


def resolve_isa(isa: str = "auto") -> str:
    """The instruction set to use: ``isa``, or for ``auto`` the environment's ``PRUNEMAP_ISA``, or else the best.

    Raises:
        PrunemapError: When the name is unknown or the CPU does not support it.
    """
    wanted = os.environ.get("PRUNEMAP_ISA", "auto") if isa == "auto" else isa
    if wanted == "auto":
        return isas()[0]
    if wanted not in _engine.built_isas():
        raise unknown_name("ISA", wanted, _engine.built_isas())
    if wanted not in isas():
        raise PrunemapError(f"ISA {wanted!r}: this CPU does not support it; it supports {', '.join(isas())}")
    return wanted


@dataclass(frozen=True)
class Memory:
    """Bytes that a compiled network holds: weights as stored, list indices, activations."""

    weights: int
    indices: int
    activations: int


class CompiledNetwork:
    """A network as a program of kernels. Call it with images; what it computes is fixed.

    Attributes:
        network: The structure it was compiled from.
        isa: Instruction set of its kernels.
        threads: Threads it runs on.
        steps: What it does, in order.
        memory: Bytes it holds.
    """

    def __init__(
        self, network: Network, program: _engine.Program, steps: tuple[Step, ...], isa: str, threads: int, arena: int
    ) -> None:
        self.network = network
        self.isa = isa
        self.threads = threads
        self.steps = steps
        self.memory = Memory(sum(s.weights_bytes for s in steps), sum(s.index_bytes for s in steps), 4 * arena)
        self._program = program

    @overload
    def __call__(self, images: torch.Tensor) -> torch.Tensor: ...

    @overload
    def __call__(self, images: Floats) -> Floats: ...

    def __call__(self, images: torch.Tensor | Floats) -> torch.Tensor | Floats:
        """Run the network on every image.

        Args:
            images: (N, C, H, W) float32, contiguous, N at least 1; a CPU tensor or an array.

        Returns:
            The outputs, N first, of the same type.

        Raises:
            PrunemapError: For any other type, shape or memory layout.
        """
        outputs = self._program.run(self._checked(images)).reshape(len(images), *self.network.nodes[-1].shape)
        return torch.from_numpy(outputs) if isinstance(images, torch.Tensor) else outputs

    def time(self, repeats: int) -> npt.NDArray[np.float64]:
        """Seconds of each of ``repeats`` runs on one image, one after the other, taken without Python in between."""
        return self._program.time(self._image, _positive(repeats))

    def time_steps(self, repeats: int, chosen: Sequence[int] | None = None) -> npt.NDArray[np.float64]:
        """(repeats, steps): seconds of every step within whole runs on one image, or in runs of the chosen steps only.

        Runs of a part of the steps compute on what the last run of the others has left.
        """
        steps = range(len(self.steps)) if chosen is None else chosen
        return self._program.time_steps(self._image, _positive(repeats), steps).reshape(repeats, len(steps))

    def plan(self) -> str:
        """A table of the steps: what each computes, how, and what it holds."""
        rows: list[tuple[str, ...]] = [("step", "layer", "operation", "output", "kernel", "kept", "weights", "indices")]
        for index, step in enumerate(self.steps):
            kept = f"{step.kept_weights / step.all_weights:.1%}" if step.all_weights else ""
            sizes = [f"{n / 1024:.1f} KiB" if n else "" for n in (step.weights_bytes, step.index_bytes)]
            shape = "x".join(map(str, step.shape))
            rows.append((str(index), step.layer or "", step.op, shape, step.candidate or "", kept, *sizes))
        return "\n".join([self._summary(), *_table(rows)])

    def _summary(self) -> str:
        memory = self.memory
        return (
            f"{self.isa}, {self.threads} thread{'s' if self.threads > 1 else ''}, {len(self.steps)} steps; "
            f"weights {memory.weights / 1024:.1f} KiB, indices {memory.indices / 1024:.1f} KiB, "
            f"activations {memory.activations / 1024:.1f} KiB"
        )

    @cached_property
    def _image(self) -> Floats:
        """An image of random numbers: zeros could be faster on some CPUs."""
        return np.random.default_rng(0).standard_normal((1, *self.network.input_shape), dtype=np.float32)

    def _checked(self, images: object) -> Floats:
        expected = ("N", *self.network.input_shape)
        if isinstance(images, torch.Tensor):
            if images.device.type != "cpu" or images.layout != torch.strided:
                raise PrunemapError(f"input on {images.device}, {images.layout}: expected a dense CPU tensor")
            if images.dtype != torch.float32:
                raise PrunemapError(f"input of {images.dtype}: expected torch.float32")
            array = images.detach().numpy()
        elif isinstance(images, np.ndarray):
            array = images
        else:
            raise PrunemapError(f"input is a {type(images).__name__}: expected a numpy array or a torch tensor")
        if array.dtype != np.float32:
            raise PrunemapError(f"input of {array.dtype}: expected float32")
        if array.ndim != 4 or array.shape[1:] != self.network.input_shape or len(array) == 0:
            raise PrunemapError(f"input of shape {array.shape}: expected ({', '.join(map(str, expected))}), N >= 1")
        if not array.flags.c_contiguous:
            raise PrunemapError("input is not contiguous: use numpy.ascontiguousarray or Tensor.contiguous")
        return array


def compile_network(
    model: nn.Module, example_input: torch.Tensor, threads: int = 1, isa: str = "auto", *, tune: bool = True
) -> CompiledNetwork:
    """Compile a module for this CPU, exploiting the zeros in its weights.

    Dead channels are dropped, batch norms folded, bias, activation and residual additions fused; for every convolution
    and linear layer the most promising kernels are timed and the fastest kept.

    Args:
        model: A module that ``pruning.capture`` understands; used in evaluation mode, not changed.
        example_input: (N, C, H, W) float32 tensor of the size that will be run; its values do not matter.
        threads: Threads to run on.
        isa: One of ``isas()``, or ``auto``: the environment's ``PRUNEMAP_ISA`` or the best.
        tune: Time the candidates. Otherwise an estimate chooses, which makes compiling fast and deterministic.

    Raises:
        PrunemapError: When the model is not supported (named with its qualified name), or an argument is invalid.
    """
    if example_input.numel() == 0:
        raise PrunemapError(f"example input of shape {tuple(example_input.shape)} is empty")
    return compile_state(capture(model, example_input), model.state_dict(), threads, isa, tune=tune)


def compile_state(
    network: Network,
    state: AbstractMapping[str, torch.Tensor],
    threads: int = 1,
    isa: str = "auto",
    *,
    tune: bool = True,
) -> CompiledNetwork:
    """As ``compile_network``, from a captured network and a state dict of its module."""
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= 256:
        raise PrunemapError(f"threads={threads!r}: expected a whole number from 1 to 256")
    name = resolve_isa(isa)
    pick = partial(choose, isa=name, threads=threads, tune=tune)
    built = build(lower(network, state), name, threads, pick)
    return CompiledNetwork(network, built.program, built.steps, name, threads, built.arena)


def _positive(repeats: int) -> int:
    if repeats < 1:
        raise PrunemapError(f"repeats={repeats}: expected at least 1")
    return repeats


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
