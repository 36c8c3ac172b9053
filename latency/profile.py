"""What a network's layers cost on one machine: measured once, kept as a file, asked for every candidate."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping as AbstractMapping
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from pathlib import Path

from pydantic import TypeAdapter
from torch import Tensor

from ..kernels import resolve_isa
from ..pruning.errors import PrunemapError
from ..pruning.mapping import Choice, Mapping
from ..pruning.network import Network
from . import profile_file
from .alike import layer_keys
from .cache import cache_folder, exclusive_lock
from .machine import Machine, machine
from .models import MODELS, LatencyModel, Prediction
from .probes import catalogue
from .rows import Row, Survey, standard_error
from .survey import Progress, survey
from .weighing import Weighing

PRICING = 6
"""Version of how rows are priced: another one predicts other times from the same rows."""
UNSTEADY = 0.05
"""Largest uncertainty from rows that were never steady, as a share of the dense network, that a search accepts."""


@dataclass(frozen=True, eq=False)
class Profile:
    """Measured costs of a network's layers over a catalogue of choices.

    Attributes:
        network: Structure of the network that was measured.
        choices: The catalogue, dense included.
        threads: Threads of the measured networks.
        seed: Seed of the random weights and of the order in which choices were combined.
        machine: Where and how it was measured.
        survey: Every row, and the dense network's whole runs.
        planned_for: The latency model that it was measured for, and that predictions use if no other is named.
        weights: The dense weights that mappings prune, where they are known; not part of the file.
    """

    network: Network
    choices: tuple[Choice, ...]
    threads: int
    seed: int
    machine: Machine
    survey: Survey
    planned_for: str = "table"
    weights: AbstractMapping[str, Tensor] | None = None

    @classmethod
    def build(  # noqa: PLR0913 - what is measured, and how: each is set by itself
        cls,
        network: Network,
        schemes: Sequence[str],
        rates: Sequence[float],
        threads: int = 1,
        *,
        isa: str = "auto",
        model: str = "table",
        progress: Progress | None = None,
        seed: int = 0,
        unfinished: Path | None = None,
    ) -> Profile:  # fmt: skip
        """Measure a network on this machine.

        No trained weights are needed: time depends on which weights are zero, and random ones stand for them. Takes
        seconds for small networks, a minute or two for large ones; nothing else should run meanwhile.

        Args:
            network: Structure to measure.
            schemes: Schemes, for instance ``["unstructured", "simd:8"]``.
            rates: Rates to be told: every other one is measured first, the others where what they cost is least sure.
                Rates in between are interpolated.
            threads: Threads of the compiled networks.
            isa: Instruction set, ``auto`` for the best one.
            model: Name of the latency model whose points are measured.
            progress: Called with units done, units in all, and a line of text.
            seed: Decides random weights and how choices are combined.
            unfinished: File in which rows are kept while the profile is being measured; an interrupted call with equal
                arguments goes on from there. It is removed in the end.

        Raises:
            PrunemapError: For an unknown scheme or model, a rate below 1, or an ISA that this CPU does not have.
        """
        choices, planned, isa = catalogue(schemes, rates), MODELS[model], resolve_isa(isa)
        found = survey(
            network,
            planned.probes(network, choices, seed),
            threads=threads,
            isa=isa,
            seed=seed,
            refine=partial(planned.refine, network, choices),
            known=profile_file.read_rows(unfinished) if unfinished else (),
            keep=partial(profile_file.write_rows, unfinished) if unfinished else _forget,
            progress=progress,
        )
        if unfinished:
            unfinished.unlink(missing_ok=True)
        return cls(network, choices, threads, seed, machine(isa), found, model)

    @property
    def dense_ms(self) -> float:
        """Median milliseconds of the whole dense network."""
        return self.survey.dense.ms

    @property
    def unstable(self) -> tuple[Row, ...]:
        """Rows whose time could not be told to 1 %; left out of predictions where others tell the same."""
        return tuple(row for row in self.survey.rows if row.unstable)

    def predict(self, network: Network, mapping: Mapping, model: str | None = None) -> Prediction:
        """Latency of ``network`` under ``mapping``; nothing is packed, compiled or measured.

        Args:
            network: The network that the profile was built for.
            mapping: Choices of its layers; rates between measured ones are interpolated.
            model: Name of a latency model; the one that the profile was measured for when left out.

        Raises:
            PrunemapError: For another network, an unknown layer or model, a choice that does not fit its layer, or a
                scheme that the profile does not hold.
        """
        if network is not self._accepted[-1]:
            if network != self.network:
                raise PrunemapError("this profile is of another network; build one for this network and input size")
            self._accepted[:] = [network]
        return self.model(model).predict(mapping)

    def layer_ms(self, layer: str, choice: Choice, model: str | None = None) -> float:
        """Milliseconds of one layer under one choice while all other layers are dense; errors as ``predict``."""
        return self.model(model).layer_ms(layer, choice)

    def model(self, name: str | None = None) -> LatencyModel:
        """The latency model called ``name``, or that the profile was measured for, on its rows; made once and kept.

        Raises:
            PrunemapError: For an unknown name.
        """
        name = name or self.planned_for
        if name not in self._models:
            self._models[name] = MODELS[name](self.network, self.survey, self._weighing)
        return self._models[name]

    def check_machine(self) -> None:
        """Make sure that measurements taken now can be compared with this profile.

        Raises:
            PrunemapError: When it was measured on another CPU, or with another ISA or version of the kernels.
        """
        here = machine(self.machine.isa).fingerprint()
        if here != self.machine.fingerprint():
            raise PrunemapError(f"profile of another machine: measured on {self.machine.fingerprint()}, this is {here}")

    def check_steady(self) -> None:
        """Make sure that predictions do not rest on noise.

        Unstable rows are left out where others tell the same. What rests on them alone may be uncertain by 5 % of the
        dense network in all: a search would learn nothing from more.

        Raises:
            PrunemapError: When it is more.
        """
        keys = layer_keys(self.network)
        steady = {(keys[row.layer], row.choice) for row in self.survey.rows if not row.unstable}
        worst: dict[str, float] = {}
        for row in self.unstable:
            if (keys[row.layer], row.choice) not in steady:
                worst[row.layer] = max(worst.get(row.layer, 0.0), standard_error(row))
        if math.hypot(*worst.values()) > UNSTEADY * self.dense_ms:
            least = max(worst, key=lambda name: worst[name])
            raise PrunemapError(
                f"profile: {len(worst)} layers were never measured steadily, {least} least of all; "
                "measure again while nothing else runs (`prunemap doctor` tells how steady this machine is)"
            )

    def digest(self) -> str:
        """Hexadecimal SHA-256 of what predictions depend on, less the weights that may be known."""
        rows = [[row.layer, str(row.choice), row.live_in, row.live_out, row.samples_ms] for row in self.survey.rows]
        timings = [self.survey.dense.samples_ms, self.survey.constant.samples_ms]
        content = [PRICING, network_signature(self.network), timings, rows]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def save(self, path: str | Path) -> None:
        """Write the profile to one Parquet file, in one step."""
        profile_file.write(Path(path), self._header, self.survey.rows)

    @classmethod
    def load(cls, path: str | Path) -> Profile:
        """Read a profile that ``save`` wrote, on this machine or another.

        Raises:
            PrunemapError: When the file is missing, damaged, not a profile, or of another format version.
        """
        header, rows = profile_file.read(Path(path))
        found = Survey(rows, header.dense, header.constant)
        choices = tuple(Choice(scheme, rate) for scheme, rate in header.choices)
        return cls(header.network, choices, header.threads, header.seed, header.machine, found, header.model)

    def __getstate__(self) -> dict[str, object]:
        """What was measured, and the weights: a copy makes its own models."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def with_weights(self, state: AbstractMapping[str, Tensor]) -> Profile:
        """The profile for mappings that prune these weights.

        How many of the filters that a layer keeps are read is chance, and where none is, neither it nor what feeds it
        alone is computed. Without weights a prediction takes what is likely, and its band is wide; with them it looks,
        where it matters, at what exactly is kept. That takes as long as pruning does.

        Args:
            state: State dict of the dense network; it must not change.
        """
        return replace(self, weights=state)

    @cached_property
    def _weighing(self) -> Weighing | None:
        return Weighing(self.network, self.weights) if self.weights else None

    @cached_property
    def _models(self) -> dict[str, LatencyModel]:
        return {}

    @cached_property
    def _accepted(self) -> list[Network]:
        """The network last seen to equal ours: comparing costs more than predicting."""
        return [self.network]

    @cached_property
    def _header(self) -> profile_file.Header:
        return profile_file.Header(
            format=profile_file.FORMAT,
            model=self.planned_for,
            network=self.network,
            choices=tuple((choice.scheme, choice.rate) for choice in self.choices),
            threads=self.threads,
            seed=self.seed,
            dense=self.survey.dense,
            constant=self.survey.constant,
            machine=self.machine,
        )


def _forget(rows: Sequence[Row]) -> None:
    return


def network_signature(network: Network) -> str:
    """Hexadecimal SHA-256 of a network's structure."""
    return hashlib.sha256(TypeAdapter(Network).dump_json(network)).hexdigest()


def cached_profile(  # noqa: PLR0913 - as Profile.build
    network: Network,
    schemes: Sequence[str],
    rates: Sequence[float],
    threads: int = 1,
    isa: str = "auto",
    model: str = "table",
    progress: Progress | None = None,
) -> Profile:  # fmt: skip
    """This machine's profile of a network, from the cache folder or, the first time, measured.

    Kept apart by network, choices, model, CPU, ISA, threads and version of the kernels. Processes that ask for it at
    once wait for the one that measures; what an interrupted one has measured is used.

    Args:
        network: Structure to measure.
        schemes: As ``Profile.build``.
        rates: As ``Profile.build``.
        threads: As ``Profile.build``.
        isa: As ``Profile.build``.
        model: As ``Profile.build``.
        progress: As ``Profile.build``; not called when the profile is there.

    Raises:
        PrunemapError: As ``Profile.build``, or when the kept file is damaged.
    """
    choices = [(choice.scheme, choice.rate) for choice in catalogue(schemes, rates)]
    here = machine(isa)
    key = [profile_file.FORMAT, network_signature(network), choices, here.fingerprint(), threads, model]
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:24]
    path = cache_folder() / "profiles" / f"{digest}.parquet"
    if not path.exists():
        with exclusive_lock():
            if not path.exists():
                unfinished = path.with_suffix(".unfinished")
                built = Profile.build(
                    network,
                    schemes,
                    rates,
                    threads,
                    isa=here.isa,
                    model=model,
                    progress=progress,
                    unfinished=unfinished,
                )
                built.save(path)
    return Profile.load(path)
