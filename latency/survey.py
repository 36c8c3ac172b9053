"""Measures what a profile holds: every probe compiled, all of them timed step by step in interleaved runs."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..kernels import CompiledNetwork, compile_state
from ..kernels.pace import QUIET, Pace
from ..pruning import Pruner, canonical_mapping, live_channels
from ..pruning.network import Network
from .batches import (
    ROUNDS,
    Allowance,
    Batches,
    InParts,
    Sampler,
    Samples,
    counted,
    interleave,
    median_and_mad,
    step_sampler,
)
from .cache import exclusive_lock
from .machine import pinned
from .measure import EVALUATIONS, STABLE
from .probes import Probe, narrows
from .rows import ELSEWHERE, Remainder, Row, Survey, Timing, step_owners
from .synthetic import synthesise

Progress = Callable[[int, int, str], None]
"""Called with the units of work done, their total, and what is going on."""

Refine = Callable[[Sequence[Row]], Sequence[Probe]]

MOST_REFINED = 16
"""Most probes that are asked for besides the given ones."""
REFINING_SECONDS = 45.0
"""After so long no further probes are asked for."""
AGAIN_SECONDS = 5.0
"""What is not steady in a turn is timed again, until that has taken so long."""
PER_TURN = 24
"""Most probes that are timed against one another; what they show is kept when they are done."""
RESIDENT_BYTES = 1 << 30
"""Packed weights that may be in memory together; larger networks are measured in several turns."""
_WHOLE = "whole runs"


def survey(  # noqa: PLR0913 - what is measured, and how: each is set by itself
    network: Network,
    probes: Sequence[Probe],
    *,
    threads: int,
    isa: str,
    seed: int,
    refine: Refine = lambda rows: [],
    known: Sequence[Row] = (),
    keep: Callable[[Sequence[Row]], None] = lambda rows: None,
    progress: Progress | None = None,
) -> Survey:
    """Compile and time probes on random weights, in turns that memory holds.

    Args:
        network: Structure to measure.
        probes: What to compile; the first is the dense network, the second the narrowest.
        threads: Threads of the compiled networks.
        isa: Instruction set.
        seed: Decides the weights, hence which units are pruned.
        refine: Given the rows so far, the probes to measure next; asked again until there are none, or it took
            ``REFINING_SECONDS``.
        known: Rows that an interrupted call has kept; probes that they show are not measured again.
        keep: Given the rows so far after each turn.
        progress: Told what has been done; every probe counts once when compiled and once when timed.
    """
    seen = {row.probe for row in known}
    base, others = list(enumerate(probes))[:2], list(enumerate(probes))[2:]
    with exclusive_lock(), pinned(threads):
        waiting = deque([*base, *((number, probe) for number, probe in others if number not in seen)])
        reporter = _Reporter(progress or _silent, len(waiting))
        surveyor = _Surveyor(network, Pruner(network, synthesise(network, seed).state_dict()), threads, isa, reporter)
        rows = [row for row in known if row.probe >= len(base)]
        number, start = max([len(probes), *(one + 1 for one in seen)]), time.monotonic()
        while waiting:
            rows += surveyor.measure(_turn(surveyor, waiting))
            keep(rows)
            refined = number - len(probes)
            if not waiting and refined < MOST_REFINED and time.monotonic() - start < REFINING_SECONDS:
                more = refine(rows)
                waiting.extend(enumerate(more, number))
                number += len(more)
                reporter.expect(len(more))
    first, narrowest = surveyor.first, surveyor.first if len(probes) == 1 else surveyor.second
    # What runs take beyond their steps is lost in the noise of a large network: it is told on the narrowest one.
    excess = narrowest.whole.ms - narrowest.steps.ms
    dense = Timing.total((first.steps, Timing(excess, 0.0, ()))) if first.in_parts else first.whole
    return Survey(tuple(rows), dense, Timing.of(first.parts[ELSEWHERE] + excess))


def _turn(surveyor: _Surveyor, waiting: deque[tuple[int, Probe]]) -> list[_Subject]:
    """Compile the next probes, as many as a turn takes."""
    turn: list[_Subject] = []
    while waiting and len(turn) < PER_TURN and sum(subject.bytes for subject in turn) < RESIDENT_BYTES:
        number, probe = waiting.popleft()
        turn.append(surveyor.compile(number, probe, timed_whole=number < 2))
    return turn


def _silent(done: int, total: int, text: str) -> None:
    return


class _Reporter:
    """Counts a probe once when it is compiled and once, in nine parts, when it is timed."""

    def __init__(self, progress: Progress, probes: int) -> None:
        self._progress = progress
        self._probes = probes
        self._compiled = 0
        self._timed = 0.0

    def expect(self, probes: int) -> None:
        """Count so many more."""
        self._probes += probes

    def compiled(self) -> None:
        self._compiled += 1
        self._tell(f"compiled {self._compiled} of {self._probes} variants")

    def timed(self, subjects: int, evaluation: int) -> None:
        if evaluation == 0:
            self._timed += subjects / ROUNDS
        again = f", {subjects} unsteady ones again (time {evaluation} of {EVALUATIONS - 1})" if evaluation else ""
        self._tell(f"timing {self._probes} variants in turn{again}")

    def _tell(self, text: str) -> None:
        self._progress(self._compiled + round(self._timed), 2 * self._probes, text)


@dataclass
class _Subject:
    """A compiled probe and the steadiest times seen of it, in ms.

    Attributes:
        number: Number of the probe.
        probe: The probe.
        compiled: The compiled network.
        weights: Layer -> what is left of it.
        sampler: How its steps are timed.
        batch: Runs per batch.
        timed_whole: Whether it is also timed without timers between the steps.
        parts: Layer, or ``ELSEWHERE`` -> one value per round that counts.
        staging: Layer -> median of the part that went into rearranging its input.
        runs: Whole runs, one value per round, where these are timed.
    """

    number: int
    probe: Probe
    compiled: CompiledNetwork
    weights: dict[str, Remainder]
    sampler: Sampler | InParts
    batch: int
    timed_whole: bool
    parts: dict[str, Samples] = field(default_factory=dict)
    staging: dict[str, float] = field(default_factory=dict)
    runs: Samples = field(default_factory=lambda: np.empty(0))
    _ranks: dict[str, tuple[bool, float]] = field(default_factory=dict)

    @property
    def in_parts(self) -> bool:
        """Whether its runs are long: then whole ones are not timed, what they take is the sum of their steps."""
        return isinstance(self.sampler, InParts)

    @property
    def whole(self) -> Timing:
        """What whole runs take."""
        return Timing.of(self.runs) if self.runs.size else self.steps

    @property
    def steps(self) -> Timing:
        """What all steps take together."""
        return Timing.total(Timing.of(rounds) for rounds in self.parts.values())

    @property
    def bytes(self) -> int:
        """Bytes of packed weights."""
        return sum(step.weights_bytes for step in self.compiled.steps)

    def take_steps(self, steps: Samples, pace: Samples) -> None:
        """Keep, of every part, the evaluation with the smallest deviation, a quiet one before all others.

        Args:
            steps: Ms, shape (rounds, steps).
            pace: The machine's beside them, of the same shape.
        """
        owners = step_owners(self.compiled.steps)
        stages = np.array([step.op == "stage" for step in self.compiled.steps])
        for part in (*self.weights, ELSEWHERE):
            own = owners == part
            beside = np.asarray(pace[:, own].max(axis=1, initial=0.0))
            which = counted(beside)
            rounds = steps[which][:, own].sum(axis=1)
            rank = _rank(rounds, beside[which])
            if part not in self.parts or rank < self._ranks[part]:
                self.parts[part], self._ranks[part] = rounds, rank
                self.staging[part] = float(np.median(steps[which][:, own & stages].sum(axis=1)))

    def take_whole(self, whole: Samples, pace: Samples) -> None:
        """As ``take_steps`` for whole runs; both have the shape (rounds,)."""
        which = counted(pace)
        rank = _rank(whole[which], pace[which])
        if not self.runs.size or rank < self._ranks[_WHOLE]:
            self.runs, self._ranks[_WHOLE] = whole[which], rank

    def unstable(self, layer: str, dense_ms: float) -> bool:
        """Whether the layer's time is uncertain by more than 1 % of itself and 0.1 % of the dense network."""
        median, mad = median_and_mad(self.parts[layer])
        return bool(mad > STABLE * max(float(median), dense_ms / 10))


def _steps(taken: Batches) -> tuple[Samples, Samples]:
    """Ms of every step in every round, and the pace beside it."""
    return 1e3 * taken.fine_rounds(), taken.pace_of_steps()


def _rank(rounds: Samples, pace: Samples) -> tuple[bool, float]:
    """Of evaluations the one with the lowest rank counts: a quiet one first, then that of the smallest deviation."""
    median, mad = median_and_mad(rounds)
    return bool(pace.max() > QUIET), float(mad) / max(float(median), 1e-9)


class _Surveyor:
    """Compiles probes of one network and times them against one another."""

    def __init__(self, network: Network, pruner: Pruner, threads: int, isa: str, reporter: _Reporter) -> None:
        self._network = network
        self._pruner = pruner
        self._threads = threads
        self._isa = isa
        self._reporter = reporter
        self._rng = np.random.default_rng(0)
        self._pace = Pace()
        self._base: list[_Subject] = []

    @property
    def first(self) -> _Subject:
        """The first probe that was measured: the dense network."""
        return self._base[0]

    @property
    def second(self) -> _Subject:
        """The second probe that was measured: the narrowest network."""
        return self._base[1]

    def compile(self, number: int, probe: Probe, timed_whole: bool) -> _Subject:
        state = self._pruner.state(probe.mapping)
        compiled = compile_state(self._network, state, self._threads, self._isa)
        live = live_channels(self._network, state)
        weights = {
            layer.name: Remainder.of(layer, state[f"{layer.name}.weight"], live[layer.name])
            for layer in self._network.layers
        }
        self._reporter.compiled()
        return _Subject(number, probe, compiled, weights, *step_sampler(compiled), timed_whole)

    def measure(self, subjects: Sequence[_Subject]) -> list[Row]:
        """Time the subjects, and those with unstable layers again; one row per layer of each."""
        self._base = [*self._base, *subjects][:2]
        self._evaluate(subjects, 0)
        start = time.monotonic()
        for evaluation in range(1, EVALUATIONS):
            pending = [subject for subject in subjects if any(map(self._unstable(subject), subject.weights))]
            if not pending or time.monotonic() - start > AGAIN_SECONDS:
                break
            self._evaluate(pending, evaluation)
        return [row for subject in subjects for row in self._rows(subject)]

    def _evaluate(self, subjects: Sequence[_Subject], evaluation: int) -> None:
        wholes = [one for one in subjects if one.timed_whole and not one.in_parts]
        samplers = [*(one.sampler for one in subjects), *(one.compiled.time for one in wholes)]
        batches = [subject.batch for subject in (*subjects, *wholes)]
        taken: list[list[Batches]] = [[] for _ in samplers]
        allowance = Allowance()
        for _ in range(ROUNDS):
            found = interleave(samplers, batches, 1, self._rng, self._pace, allowance)
            for own, batch in zip(taken, found, strict=True):
                own.append(batch)
            self._reporter.timed(len(subjects), evaluation)
        steps, whole = taken[: len(subjects)], taken[len(subjects) :]
        for subject, rounds in zip(subjects, steps, strict=True):
            subject.take_steps(*(np.concatenate(each) for each in zip(*map(_steps, rounds), strict=True)))
        for subject, rounds in zip(wholes, whole, strict=True):
            beside = np.concatenate([one.pace for one in rounds])
            subject.take_whole(1e3 * np.concatenate([one.fine_rounds() for one in rounds]), beside)

    def _unstable(self, subject: _Subject) -> Callable[[str], bool]:
        dense_ms = self.first.whole.ms
        return lambda layer: subject.unstable(layer, dense_ms)

    def _rows(self, subject: _Subject) -> Iterator[Row]:
        mapping = canonical_mapping(self._network, subject.probe.mapping)
        steps = {step.layer: step for step in subject.compiled.steps if step.op == "convolution"}
        planes = {step.layer: step.shape[0] for step in subject.compiled.steps if step.op == "stage"}
        unstable = self._unstable(subject)
        for layer in self._network.layers:
            name = layer.name
            if subject.probe.mixed and narrows(self._network, name, mapping):
                continue  # all producers of a group happen to remove filters alike: that is the narrow probes' matter
            timing = Timing.of(subject.parts[name])
            yield Row(
                probe=subject.number,
                mixed=subject.probe.mixed,
                layer=name,
                choice=mapping[name],
                **vars(subject.weights[name]),
                **vars(timing),
                stored=steps[name].shape[0],
                staging_ms=min(timing.ms, subject.staging[name]),
                staged=steps[name].staged,
                planes=planes.get(name, 0),
                together=steps[name].together,
                unstable=unstable(name),
            )
