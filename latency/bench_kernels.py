"""Every layer of a pruned network: its share of the roof, of its own bound and of the dense layer's time.

A layer is timed in three ways: alone with everything hot; alone with its input hot and its weights cold, as they are
when a large network comes round again (XNNPACK's benchmarks of sparse matrices do so); and in place, within runs of the
whole network. Statistic: the median over rounds of the fastest run of a round, which neither an interrupt nor
a slow round moves. The loop that gives the roof is timed in the same rounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor, nn

from ..kernels import Step, resolve_isa
from ..kernels.alone import Alone
from ..kernels.build import build
from ..kernels.candidate import Candidate
from ..kernels.lowering import lower
from ..kernels.pace import Pace
from ..kernels.task import Task
from ..kernels.tune import choose
from ..pruning import capture
from ..pruning.errors import PrunemapError
from .batches import Sampler, Samples, batch_size, interleave
from .cache import exclusive_lock
from .machine import pinned
from .roof import Roof, RoofLoops, stream_bytes

ROUNDS = 7
COLD_RUNS = 8
"""Runs of a batch with cold weights, each with a copy of its own."""
COPIES_BYTES = 256 << 20
"""Bytes that copies of one layer's weights may take; weights beyond all caches need no copies to be cold."""
WAYS = ("hot", "cold", "in_place")


@dataclass(frozen=True)
class Way:
    """One layer timed in one way.

    Attributes:
        ms: Its time, with that of taking its input apart.
        dense_ms: The same of the dense network's layer, in the same rounds.
        bound_ms: What multiply-adds of the plain convolution at the roof, or reading everything once, takes at least.
    """

    ms: float
    dense_ms: float
    bound_ms: float


@dataclass(frozen=True)
class KernelRow:
    """A layer, or several layers of equal shape and number of weights, of which the first was timed alone.

    Attributes:
        layers: Their names; times in place are the mean of all.
        kind: ``conv``, ``depthwise`` or ``linear``.
        shape: Of the first layer's live weights: filters, input channels per group, kernel height and width.
        stride: Vertical and horizontal.
        output: (height, width) of its output.
        kept: Share of the dense layer's weights that is left.
        flops: Two per multiplication by a kept weight at an output pixel.
        candidate: How it is computed.
        dense_candidate: How the dense layer is computed.
        weights_bytes: Bytes of the weights as stored.
        index_bytes: Bytes of the lists.
        activation_bytes: Bytes of input, output and residual.
        roof_gflops: The roof, measured in the same rounds.
        hot: Alone, everything in the caches as far as it fits.
        cold: Alone, the weights from memory.
        in_place: Within whole runs of the network.
    """

    layers: tuple[str, ...]
    kind: str
    shape: tuple[int, ...]
    stride: tuple[int, int]
    output: tuple[int, int]
    kept: float
    flops: int
    candidate: str
    dense_candidate: str
    weights_bytes: int
    index_bytes: int
    activation_bytes: int
    roof_gflops: float
    hot: Way
    cold: Way
    in_place: Way

    def way(self, name: str) -> Way:
        """One of ``WAYS``."""
        return {"hot": self.hot, "cold": self.cold, "in_place": self.in_place}[name]

    def gflops(self, way: str) -> float:
        """Useful 10^9 floating-point operations per second."""
        return self.flops / self.way(way).ms / 1e6

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, with the shares."""
        told = {f"{way}_{what}": value for way in WAYS for what, value in shares([self], way).items()}
        return asdict(self) | told | {f"{way}_ms": self.way(way).ms for way in WAYS}


def shares(rows: Sequence[KernelRow], way: str) -> dict[str, float]:
    """Geometric means over layers: of the roof, of the layers' bounds, and of the dense layers' times (less is faster).

    Every layer counts once, whatever its time: a row of several layers as often as it has layers.
    """
    weights = np.array([len(row.layers) for row in rows], dtype=np.float64)
    each = np.array(
        [
            (row.gflops(way) / row.roof_gflops, row.way(way).bound_ms / row.way(way).ms,
             row.way(way).ms / row.way(way).dense_ms)
            for row in rows
        ]
    )  # fmt: skip
    return _told(np.exp(np.average(np.log(each), axis=0, weights=weights)))


def time_shares(rows: Sequence[KernelRow], way: str) -> dict[str, float]:
    """The same as ``shares`` for all layers together: every layer counts by its time."""
    weights = np.array([len(row.layers) for row in rows], dtype=np.float64)
    ms, dense, bound = (weights @ np.array([getattr(r.way(way), name) for r in rows])
                        for name in ("ms", "dense_ms", "bound_ms"))  # fmt: skip
    at_roof = weights @ np.array([row.flops / row.roof_gflops / 1e6 for row in rows])
    return _told(np.array([at_roof / ms, bound / ms, ms / dense]))


def _told(values: Samples) -> dict[str, float]:
    return dict(zip(("of_roof", "of_bound", "of_dense"), values.tolist(), strict=True))


class _Compiled:
    """A network's program, and the convolutions in it by layer."""

    def __init__(self, model: nn.Module, example: Tensor, isa: str, threads: int) -> None:
        self.network = capture(model, example)
        lowered = lower(self.network, model.state_dict())
        names = {id(o.convolution): o.layer for o in lowered.operations if o.convolution is not None}
        self.tasks: dict[str, tuple[Task, Candidate]] = {}

        def pick(task: Task) -> Candidate:
            candidate = choose(task, isa, threads, tune=True)
            self.tasks[str(names[id(task.convolution)])] = task, candidate
            return candidate

        built = build(lowered, isa, threads, pick)
        self.steps: tuple[Step, ...] = built.steps
        self.weights_bytes = sum(step.weights_bytes + step.index_bytes for step in self.steps)
        self._program = built.program
        self._image = np.random.default_rng(0).standard_normal(math.prod(self.network.input_shape), dtype=np.float32)

    def time(self, repeats: int) -> Samples:
        """(repeats, steps): seconds of the steps within whole runs."""
        chosen = range(len(self.steps))
        return self._program.time_steps(self._image, repeats, chosen).reshape(repeats, len(self.steps))

    def by_layer(self, seconds: Samples) -> dict[str, float]:
        """Milliseconds of every layer, of seconds per step."""
        return {
            layer: 1e3 * sum(s for s, step in zip(seconds.tolist(), self.steps, strict=True) if step.layer == layer)
            for layer in self.tasks
        }


def bench_kernels(  # noqa: PLR0913 - what is measured, and how: each is set by itself
    model: nn.Module,
    pruned: nn.Module,
    example: Tensor,
    layers: Collection[str] | None = None,
    threads: int = 1,
    isa: str = "auto",
    report: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> list[KernelRow]:
    """Time the layers of a pruned network against the roof, their bounds and the dense network's layers.

    Args:
        model: The dense network.
        pruned: The same with zeros, for instance from ``apply_mapping``.
        example: (N, C, H, W) float32 input; shapes are specialised on it.
        layers: Names of the layers to time; all when left out.
        threads: Threads of the kernels and of the roof.
        isa: Instruction set.
        report: Told how many layers are done, of how many, and what comes next.

    Returns:
        Rows in the order of the network; layers of which pruning left nothing are missing.

    Raises:
        PrunemapError: For an ISA that this CPU does not have, or when no layer is left to time.
    """
    name = resolve_isa(isa)
    with exclusive_lock(), pinned(threads):
        dense, sparse = (_Compiled(m, example, name, threads) for m in (model, pruned))
        groups = _groups(dense, sparse, layers)
        if not groups:
            raise PrunemapError("no layer to time: none of those asked for is left in the network")
        bench = _Bench(name, threads)
        alone: list[_Found] = []
        for done, (layer, *_) in enumerate(groups):
            report(done, len(groups), layer)
            alone.append(bench.alone(dense.tasks[layer], sparse.tasks[layer]))
        report(len(groups), len(groups), "whole runs")
        placed = bench.in_place(dense, sparse)
    return [bench.row(group, dense, sparse, found, placed) for group, found in zip(groups, alone, strict=True)]


def _groups(dense: _Compiled, sparse: _Compiled, layers: Collection[str] | None) -> list[tuple[str, ...]]:
    """Names of layers that have equal geometry and as many weights left."""
    groups: dict[tuple[object, ...], list[str]] = {}
    for layer, (task, _) in sparse.tasks.items():
        if (layers is None or layer in layers) and task.matrix.mask.any():
            groups.setdefault((*_geometry(task), *_geometry(dense.tasks[layer][0])), []).append(layer)
    return [tuple(names) for names in groups.values()]


def _geometry(task: Task) -> tuple[object, ...]:
    c = task.convolution
    sizes = (c.weight.shape, len(c.inputs), c.stride, c.padding, c.dilation, int(task.matrix.mask.sum()))
    return (*sizes, task.source, task.target, task.residual, task.clamp)


@dataclass(frozen=True)
class _Found:
    """Milliseconds alone, hot and cold, dense and pruned, and the pruned layer's bytes."""

    hot: tuple[float, float]
    cold: tuple[float, float]
    weights_bytes: int
    index_bytes: int


class _Bench:
    """What all layers are measured with."""

    def __init__(self, isa: str, threads: int) -> None:
        self._isa = isa
        self._threads = threads
        self._loops = RoofLoops(isa, threads)
        self._rng = np.random.default_rng(0)
        self._pace = Pace()

    def alone(self, dense: tuple[Task, Candidate], sparse: tuple[Task, Candidate]) -> _Found:
        """Time one layer outside its network, dense and pruned."""
        subjects = [self._place(*each) for each in (dense, sparse)]
        samplers: list[Sampler] = [partial(_hot, subject) for subject in subjects]
        batches = [batch_size(sampler) for sampler in samplers]
        samplers += [partial(self._cold, subject) for subject in subjects]
        times = 1e3 * np.array([float(t) for t in self._times(samplers, [*batches, COLD_RUNS, COLD_RUNS])])
        hot_dense, hot, cold_dense, cold = times.tolist()
        return _Found((hot_dense, hot), (cold_dense, cold), subjects[1].weights_bytes, subjects[1].index_bytes)

    def in_place(self, dense: _Compiled, sparse: _Compiled) -> tuple[dict[str, float], dict[str, float]]:
        """Milliseconds of every layer within whole runs, of the dense and of the pruned network."""
        samplers: list[Sampler] = [dense.time, sparse.time]
        taken = self._times(samplers, [max(3, batch_size(sampler)) for sampler in samplers])
        return dense.by_layer(taken[0]), sparse.by_layer(taken[1])

    def _place(self, task: Task, candidate: Candidate) -> Alone:
        """The layer with as many copies of its weights as a batch needs, and one that brings the input back."""
        size = 4 * int(task.matrix.mask.sum())
        copies = 1 if size > stream_bytes() else max(2, min(1 + COLD_RUNS, COPIES_BYTES // max(size, 1)))
        return Alone(task, [candidate] * copies, self._isa, self._threads)

    def _cold(self, subject: Alone, repeats: int) -> Samples:
        """All caches are swept; the first run, which ``interleave`` does not count, brings the input back."""
        self._loops.sweep()
        return subject.time(range(repeats))

    def _times(self, samplers: Sequence[Sampler], batches: Sequence[int]) -> list[Samples]:
        """Median of the rounds' fastest runs; the roof is measured in the same rounds."""
        loops = self._loops.samplers
        all_batches = [*batches, *self._loops.batches]
        found = interleave([*samplers, *loops], all_batches, ROUNDS, self._rng, self._pace)
        taken = [one.samples for one in found]
        self._loops.note(taken[len(samplers) :])
        return [np.median(samples.min(axis=1), axis=0) for samples in taken[: len(samplers)]]

    def row(
        self, group: tuple[str, ...], dense: _Compiled, sparse: _Compiled, found: _Found,
        placed: tuple[dict[str, float], dict[str, float]],
    ) -> KernelRow:  # fmt: skip
        """What is told of a group of layers, once all are measured."""
        (task, candidate), (dense_task, dense_candidate) = sparse.tasks[group[0]], dense.tasks[group[0]]
        roof = self._loops.roof()
        kept = int(task.matrix.mask.sum())
        height, width = task.target.shape[1:]
        flops = 2 * kept * height * width
        activations = 4 * sum(math.prod(g.shape) for g in (task.source, task.target, task.residual) if g is not None)
        weights = found.weights_bytes + found.index_bytes
        reading = {
            "hot": _reading(roof, weights + activations, weights + activations),
            "cold": _reading(roof, weights, math.inf) + _reading(roof, activations, activations),
            "in_place": _reading(roof, weights, sparse.weights_bytes) + _reading(roof, activations, activations),
        }
        in_place = tuple(float(np.mean([part[layer] for layer in group])) for part in placed)
        times = {"hot": found.hot, "cold": found.cold, "in_place": in_place}
        ways = {w: Way(times[w][1], times[w][0], max(flops / roof.gflops / 1e6, reading[w])) for w in WAYS}
        layer = next(layer for layer in sparse.network.layers if layer.name == group[0])
        return KernelRow(
            group, layer.kind, task.convolution.weight.shape, task.convolution.stride, (height, width),
            kept / int(dense_task.matrix.mask.sum()), flops, str(candidate), str(dense_candidate),
            found.weights_bytes, found.index_bytes, activations, roof.gflops, **ways,
        )  # fmt: skip


def _reading(roof: Roof, size: float, where: float) -> float:
    """Milliseconds to read ``size`` bytes from the level that holds ``where`` bytes."""
    return size / roof.bandwidth(where) / 1e6


def _hot(subject: Alone, repeats: int) -> Samples:
    return subject.time(0 for _ in range(repeats))
