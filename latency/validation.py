"""How well predictions agree with whole compiled networks, over random mappings drawn after the profile."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau
from torch import Tensor, nn

from ..kernels import CompiledNetwork, compile_network
from ..kernels.pace import QUIET, Pace
from ..pruning import apply_mapping, misfit
from ..pruning.mapping import DENSE, Choice, Mapping
from ..pruning.network import LayerSpec
from .batches import ROUNDS, Batches, InParts, interleave, median_and_mad, slowdown, step_sampler
from .cache import exclusive_lock
from .machine import pinned
from .measure import STABLE, measure_interleaved
from .models import Prediction
from .profile import Profile
from .rows import step_owners

RESIDENT_BYTES = 1 << 30
"""Packed weights of one group of networks that are measured against one another."""
LARGEST_GROUP = 25
AGAIN = 2
"""How often disturbed measurements are made again."""
WITHIN = 0.1
HALVES = ("independent", "log-uniform")
_PER_TARGET = 40
"""Mappings drawn for each one taken into the log-uniform half."""

Floats = NDArray[np.float64]
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Drawn:
    """A random mapping: of which half, and what was predicted for it before it was compiled."""

    half: str
    mapping: Mapping
    prediction: Prediction


@dataclass(frozen=True)
class Measured:
    """What whole runs of a network took.

    Attributes:
        ms: Milliseconds: the median over whole runs; of long ones the sum of what their steps take on a quiet machine.
        pace: How many times slower than at its quietest the machine was beside that.
        unstable: Whether the relative deviation stayed above 1 %; of sums of steps, over all rounds.
    """

    ms: float
    pace: float
    unstable: bool

    @classmethod
    def of_steps(cls, taken: Batches) -> Measured:
        """Add up steps that were timed in parts."""
        seconds, pace = taken.quiet_steps()
        median, mad = median_and_mad(taken.fine_rounds().sum(axis=1))
        beside = float(np.average(pace, weights=seconds))
        return cls(1e3 * float(seconds.sum()), beside, bool(mad > STABLE * median))

    @property
    def disturbed(self) -> bool:
        """Whether the machine was not quiet."""
        return self.pace > QUIET


@dataclass(frozen=True)
class Trial:
    """A drawn mapping and what the compiled network took.

    Attributes:
        drawn: The mapping and its prediction.
        measured: Whole runs.
        dense_ms: The dense network's, measured in turn with this one.
        predicted_layers: Predicted ms of every layer, in order.
        measured_layers: Measured ms of every layer's steps inside whole runs, at a quiet machine's pace, in order.
    """

    drawn: Drawn
    measured: Measured
    dense_ms: float
    predicted_layers: tuple[float, ...]
    measured_layers: tuple[float, ...]

    @property
    def error(self) -> float:
        """Predicted over measured latency, less 1."""
        return self.drawn.prediction.ms / self.measured.ms - 1.0

    @property
    def inside(self) -> bool:
        """Whether the measurement lies inside the predicted band."""
        return self.drawn.prediction.low <= self.measured.ms <= self.drawn.prediction.high

    def judging(self, profile: Profile) -> Trial:
        """The same measurement held against what another profile of the network predicts."""
        mapping = self.drawn.mapping
        drawn = replace(self.drawn, prediction=profile.predict(profile.network, mapping))
        return replace(self, drawn=drawn, predicted_layers=profile.model().layers_ms(mapping))


@dataclass(frozen=True)
class Agreement:
    """Errors of predictions against measurements of some mappings.

    Attributes:
        mean: Mean absolute relative error.
        largest: Largest absolute relative error.
        within: Share of mappings within 10 % of the measurement.
        tau: Kendall's tau-b of predicted and measured order.
        inside: Share of measurements inside the predicted band.
        constant: Mean absolute relative error of the best constant prediction, with which to compare ``mean``.
        of_dense: Mean absolute relative error where both sides are seen as fractions of the dense network, predicted
            and measured beside the mapping: without what the machine's clock did meanwhile.
    """

    mean: float
    largest: float
    within: float
    tau: float
    inside: float
    constant: float
    of_dense: float


def draw_mappings(profile: Profile, count: int, highest_rate: float, rng: np.random.Generator) -> list[Drawn]:
    """Random legal mappings over the profile's schemes, at rates from 1 to ``highest_rate``.

    Half take an independent choice for every layer: any scheme that fits, dense included, at a log-uniform rate. Half
    are chosen from many such, with rates of one size and a share of dense layers of their own, so that their predicted
    latencies are spread log-uniformly.
    """
    schemes = sorted({choice.scheme for choice in profile.choices})
    layers = profile.network.layers

    def drawn(half: str, mapping: Mapping) -> Drawn:
        return Drawn(half, mapping, profile.predict(profile.network, mapping))

    first = [drawn(HALVES[0], _random(layers, schemes, (1.0, highest_rate), 0.0, rng)) for _ in range(count // 2)]
    wanted = count - len(first)
    pool = []
    for _ in range(_PER_TARGET * wanted):
        centre, spread = highest_rate ** rng.random(), highest_rate ** (rng.random() / 2)
        rates = max(1.0, centre / spread), min(highest_rate, centre * spread)
        pool.append(drawn(HALVES[1], _random(layers, schemes, rates, rng.random(), rng)))
    return first + _log_uniform(pool, wanted)


def _random(
    layers: Sequence[LayerSpec], schemes: Sequence[str], rates: tuple[float, float], dense: float,
    rng: np.random.Generator,
) -> Mapping:  # fmt: skip
    """A choice for every layer: dense with some probability, else any scheme that fits at a log-uniform rate."""
    low, high = map(math.log, rates)
    chosen = {}
    for layer in layers:
        rate = math.exp(rng.uniform(low, high))
        fitting = [choice for choice in (Choice(s, rate) for s in schemes) if misfit(layer, choice) is None]
        chosen[layer.name] = DENSE if rng.random() < dense else fitting[rng.integers(len(fitting))]
    return Mapping(chosen)


def _log_uniform(pool: list[Drawn], count: int) -> list[Drawn]:
    """The mappings of ``pool`` nearest to ``count`` log-uniform latencies, each once."""
    logs = np.log([one.prediction.ms for one in pool])
    free = np.ones(len(pool), dtype=np.bool_)
    found = []
    for target in np.linspace(logs.min(), logs.max(), count):
        nearest = int(np.argmin(np.where(free, np.abs(logs - target), np.inf)))
        free[nearest] = False
        found.append(pool[nearest])
    return found


def validate(
    profile: Profile, model: nn.Module, example: Tensor, drawn: Sequence[Drawn], progress: Progress | None = None
) -> list[Trial]:
    """Compile and measure every mapping, in groups interleaved with the dense network, each as large as memory allows.

    Those beside which the machine was disturbed are measured again when the others are done: neighbours go away. The
    quietest measurement counts.

    Args:
        profile: Whose predictions are judged; its threads and instruction set are used.
        model: The dense network with the weights to prune.
        example: One input.
        drawn: The mappings.
        progress: Told how many are measured.
    """

    def compiled(mapping: Mapping) -> CompiledNetwork:
        tell("compiling random mappings")
        pruned = apply_mapping(model, mapping, profile.network)
        return compile_network(pruned, example, profile.threads, profile.machine.isa)

    def measured(some: Sequence[Drawn]) -> Iterator[Trial]:
        for group in _groups(some, compiled):
            tell(f"measuring {len(group)} of them and the dense network in turn")
            yield from _measure(profile, dense, group)

    def tell(text: str) -> None:
        if progress:
            progress(sum(not trial.measured.disturbed for trial in trials), len(drawn), text)

    trials: list[Trial] = []
    with exclusive_lock(), pinned(profile.threads):
        dense = compiled(Mapping())
        trials += measured(drawn)
        for _ in range(AGAIN):
            disturbed = [index for index, trial in enumerate(trials) if trial.measured.disturbed]
            for index, again in zip(disturbed, measured([trials[index].drawn for index in disturbed]), strict=True):
                if again.measured.pace < trials[index].measured.pace:
                    trials[index] = again
    if progress:
        progress(len(drawn), len(drawn), "measured")
    return trials


def _groups(
    drawn: Sequence[Drawn], compiled: Callable[[Mapping], CompiledNetwork]
) -> Iterator[list[tuple[Drawn, CompiledNetwork]]]:
    """Mappings and their networks, as many together as memory allows."""
    waiting = list(drawn)
    while waiting:
        group: list[tuple[Drawn, CompiledNetwork]] = []
        while waiting and len(group) < LARGEST_GROUP and _bytes(net for _, net in group) < RESIDENT_BYTES:
            group.append((waiting[0], compiled(waiting.pop(0).mapping)))
        yield group


def _bytes(networks: Iterator[CompiledNetwork]) -> int:
    return sum(network.memory.weights + network.memory.indices + network.memory.activations for network in networks)


def _measure(
    profile: Profile, dense: CompiledNetwork, group: Sequence[tuple[Drawn, CompiledNetwork]]
) -> Iterator[Trial]:
    (base, *measured), (_, *steps) = _measured([dense, *(network for _, network in group)])
    for (drawn, network), own, times in zip(group, measured, steps, strict=True):
        predicted = profile.model().layers_ms(drawn.mapping)
        yield Trial(drawn, own, base.ms, predicted, _layers(profile, network, times))


def _measured(networks: Sequence[CompiledNetwork]) -> tuple[list[Measured], list[Floats]]:
    """What networks take, timed in turn, and ms of every step at a quiet machine's pace; the first decides how."""
    samplers, batches = zip(*(step_sampler(network) for network in networks), strict=True)
    taken = interleave(samplers, batches, ROUNDS, np.random.default_rng(0), Pace())
    steps = [1e3 * seconds / slowdown(pace) for seconds, pace in (one.quiet_steps() for one in taken)]
    if isinstance(samplers[0], InParts):
        return [Measured.of_steps(one) for one in taken], steps
    return [Measured(m.median_ms, m.pace, m.unstable) for m in measure_interleaved(networks)], steps


def _layers(profile: Profile, network: CompiledNetwork, steps: Floats) -> tuple[float, ...]:
    owners = step_owners(network.steps)
    return tuple(float(steps[owners == layer.name].sum()) for layer in profile.network.layers)


def agreement(trials: Sequence[Trial], predicted_dense: float) -> Agreement:
    """Summarise trials; at least two."""
    predicted = np.array([trial.drawn.prediction.ms for trial in trials])
    measured = np.array([trial.measured.ms for trial in trials])
    drift = np.array([trial.dense_ms for trial in trials]) / predicted_dense
    errors = np.abs(predicted / measured - 1.0)
    return Agreement(
        mean=float(errors.mean()),
        largest=float(errors.max()),
        within=float((errors <= WITHIN).mean()),
        tau=float(kendalltau(predicted, measured).statistic),
        inside=float(np.mean([trial.inside for trial in trials])),
        constant=_constant_error(measured),
        of_dense=float(np.abs(predicted * drift / measured - 1.0).mean()),
    )


def _constant_error(measured: Floats) -> float:
    """Mean absolute relative error of the best constant, which is one of the measurements: the sum bends there."""
    return float(np.abs(measured[:, None] / measured - 1.0).mean(axis=1).min())


@dataclass(frozen=True)
class SchemeError:
    """How layers under one scheme are predicted inside whole networks.

    Attributes:
        scheme: The scheme.
        layers: How many layers of all mappings had it.
        share: Their share of all measured time.
        mean: Sum of the layers' absolute errors over the sum of their measured times.
        bias: The same with signs: what is left of it when layers add up.
    """

    scheme: str
    layers: int
    share: float
    mean: float
    bias: float


def by_scheme(profile: Profile, trials: Sequence[Trial]) -> list[SchemeError]:
    """Errors of single layers, by their scheme."""
    entries: dict[str, list[tuple[float, float]]] = {}
    for trial in trials:
        pairs = zip(trial.predicted_layers, trial.measured_layers, strict=True)
        for layer, pair in zip(profile.network.layers, pairs, strict=True):
            entries.setdefault(trial.drawn.mapping[layer.name].scheme, []).append(pair)
    total = sum(measured for pairs in entries.values() for _, measured in pairs)
    found = []
    for scheme in sorted(entries):
        predicted, measured = np.array(entries[scheme]).T
        time = max(float(measured.sum()), 1e-12)
        mean, bias = np.abs(predicted - measured).sum() / time, (predicted - measured).sum() / time
        found.append(SchemeError(scheme, len(measured), time / total, float(mean), float(bias)))
    return found
