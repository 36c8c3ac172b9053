"""Measures whether latencies can be trusted and prints one table: what, how much it should reach, what was measured.

    .venv/bin/python benchmarks/latency_targets.py [--only WORD] [--mappings N] [--pairs N] [--out FOLDER]

Figures come from `prunemap bench` commands, or from the library where a command would not do, each in a process of its
own; their JSON and what they told meanwhile are kept in the folder. `--only` takes those lines of the table whose text
contains the word. A line that fails says why, and the others follow. Measure while nothing else runs.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from typing import ParamSpec, TypeVar

import numpy as np
import torch
from targets import Figures, Row, Target, bench, bench_once, command_line, keep, print_table
from torch import nn

from prunemap.envs import build_network
from prunemap.latency import Profile, cached_profile, exclusive_lock, pinned
from prunemap.latency.probes import choices_of
from prunemap.pruning import Choice, Mapping, Network, capture
from prunemap.pruning.mapping import DENSE
from prunemap.pruning.schemes import SCHEMES

P = ParamSpec("P")
T = TypeVar("T")
NETWORKS = {"resnet18": "3x224x224", "mobilenetv2": "3x224x224", "resnet20": "3x32x32", "resnet8": "3x8x8"}
REPEATED = ("resnet20", "resnet18")
JUDGED = ("table", "piecewise-linear")
GRIDS = ("layer1.0.conv1", "layer2.1.conv1")
EVERY_FAMILY = tuple(SCHEMES[name].example for name in SCHEMES if name != "dense")
RATES = (1.5, 2.0, 4.0, 8.0, 16.0)
SAME, QUIET = 0.02, 0.03


@dataclass
class Settings:
    """What the command line says."""

    mappings: int = 100
    pairs: int = 20
    seed: int = 1


SETTINGS = Settings()


def alone(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What a function returns in a new process."""
    print(f"... {function.__name__}{args}", file=sys.stderr, flush=True)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *args, **kwargs).result()


# Predicted against measured


def agreement(network: str, model: str, half: str, key: str) -> Figures:
    """One figure of random mappings, beside a constant prediction and how many measurements were not steady."""
    words = ("--network", network, "--shape", NETWORKS[network], "--mappings", str(SETTINGS.mappings))
    found = bench_once("latency", *words, "--model", ",".join(JUDGED), "--seed", str(SETTINGS.seed))
    row = next(row for row in found if row["model"] == model and row.get("half") == half)
    beside = {"a constant": row["constant"], "largest": row["largest"]} if key == "mean" else {}
    flags = {flag: row[flag] for flag in ("unstable", "disturbed")}
    return {key: row[key], **beside, **flags, "of": row["mappings"]}


def predictions() -> Iterator[Target]:
    """Lines about random mappings."""
    for network in NETWORKS:
        for what, model, half, key, bound in (
            ("mean absolute error", "table", "all", "mean", 0.03),
            ("within 10 %, share", "table", "all", "within", 0.99),
            ("Kendall tau, log-uniform half", "table", "log-uniform", "tau", 0.95),
            ("Kendall tau, independent half", "table", "independent", "tau", 0.85),
            ("mean absolute error", "piecewise-linear", "all", "mean", 0.04),
        ):
            measured = partial(agreement, network, model, half, key)
            yield Target(f"{network} at {NETWORKS[network]}, {model}: {what}", bound, key != "mean", measured)


def coarse_grid(layer: str) -> Figures:
    """The channels model's grid against all widths of a layer, measured one by one."""
    words = ("--network", "resnet20", "--shape", NETWORKS["resnet20"], "--layers", layer)
    (row,) = bench("grid", *words)
    return {"mean": row["mean"], "of the dense layer": row["of_dense"], "largest": row["largest"], "of": row["widths"]}


# Measured again, and beside a neighbour


def measured_rows(network: str) -> list[Row]:
    """The network, dense and pruned, measured in a new process."""
    return bench("network", "--network", network, "--shape", NETWORKS[network], "--scheme", "simd:8", "--rate", "4")


def flagged(row: Row) -> bool:
    """Whether the measurement itself says that it is not to be trusted."""
    return bool(row["unstable"] or row["disturbed"])


def same_again(network: str) -> Figures:
    """A/A: pairs of processes that measure the same compiled networks."""
    measured_rows(network)  # plans are in the cache folder from now on: all processes compile the same
    pairs = [(measured_rows(network), measured_rows(network)) for _ in range(SETTINGS.pairs)]
    keep(f"same-again-{network}", pairs)
    twins = [twin for one, other in pairs for twin in zip(one, other, strict=True)]
    apart = np.array([abs(one["median_ms"] / other["median_ms"] - 1.0) for one, other in twins])
    steady = np.array([not flagged(one) and not flagged(other) for one, other in twins])
    agree = apart <= SAME
    return {
        "share": float(agree.mean()), "median apart": float(np.median(apart)), "largest": float(apart.max()),
        "not flagged": int(steady.sum()), "of them agree": int(agree[steady].sum()), "of": len(twins),
    }  # fmt: skip


def beside_training(network: str) -> Figures:
    """Measurements beside a process that trains on another core, held against those of the quiet machine."""
    measured_rows(network)
    with elsewhere() as core:
        quiet = [measured_rows(network) for _ in range(3)]
        with training_on(core):
            beside = [measured_rows(network) for _ in range(max(1, SETTINGS.pairs // 2))]
    keep(f"beside-training-{network}", {"quiet": quiet, "beside": beside})
    expected = [float(np.median([rows[index]["median_ms"] for rows in quiet])) for index in range(len(quiet[0]))]
    found = [
        (row["median_ms"] / ms - 1.0, flagged(row)) for rows in beside for row, ms in zip(rows, expected, strict=True)
    ]
    silent = [abs(off) for off, told in found if not told]
    return {
        "share": float(np.mean([told or abs(off) <= QUIET for off, told in found])),
        "flagged": sum(told for _, told in found), "largest off, not flagged": max(silent, default=0.0),
        "largest off": max(abs(off) for off, _ in found),
        "flagged when quiet": sum(flagged(row) for rows in quiet for row in rows), "of": len(found),
    }  # fmt: skip


@contextmanager
def elsewhere() -> Iterator[int]:
    """Leave one core, which is given, to others: processes started meanwhile run on the rest."""
    before = os.sched_getaffinity(0)
    if len(before) < 2:
        raise RuntimeError("one CPU only: nothing can train on another core")
    core = min(before)
    os.sched_setaffinity(0, before - {core})
    try:
        yield core
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def training_on(core: int) -> Iterator[None]:
    """Let a process train on a core meanwhile."""
    spawn = get_context("spawn")
    begun = spawn.Event()
    process = spawn.Process(target=train_for_ever, args=(core, os.getpid(), begun), daemon=True)
    process.start()
    try:
        if not begun.wait(120.0):
            raise RuntimeError("the process that trains did not begin")
        yield
        if not process.is_alive():
            raise RuntimeError("the process that trains ended before the measurements did")
    finally:
        process.terminate()
        process.join()


def train_for_ever(core: int, parent: int, begun: Event) -> None:
    """Train a small network on random images, on one core, until the parent has gone."""
    os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    model = build_network("resnet20", seed=0)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    images = torch.randn(32, 3, 32, 32, generator=generator)
    labels = torch.randint(10, (32,), generator=generator)
    while os.getppid() == parent:
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        begun.set()


# What profiles and predictions cost


def structure_of(network: str, shape: str) -> Network:
    """A network's structure for an input size."""
    return capture(build_network(network).eval(), torch.zeros(1, *map(int, shape.split("x"))))


def profile_of(network: str, shape: str, folder: str) -> Figures:
    """Build a profile of every family of schemes, with nothing in the cache folder."""
    os.environ["PRUNEMAP_CACHE"] = folder
    structure = structure_of(network, shape)
    start = time.perf_counter()
    profile = cached_profile(structure, EVERY_FAMILY, RATES)
    seconds = time.perf_counter() - start
    rows = profile.survey.rows
    probes = len({row.probe for row in rows})
    return {"seconds": seconds, "probes": probes, "unsteady rows": len(profile.unstable), "of": len(rows)}


def profile_seconds(network: str, shape: str) -> Figures:
    """Seconds of building a profile, in a new process with an empty cache folder."""
    with tempfile.TemporaryDirectory() as folder:
        found = alone(profile_of, network, shape, folder)
    keep(f"profile-{network}-{shape}", found)
    return found


def predict_times(mappings: int, seed: int) -> Figures:
    """Microseconds of single predictions for ResNet-50: of the profile's choices, as searches take them, and any rates.

    What a prediction costs does not depend on the size of the input, so that a small one is profiled.
    """
    profile = cached_profile(structure_of("resnet50", "3x64x64"), EVERY_FAMILY, RATES)
    rng = np.random.default_rng(seed)
    fitting = {layer.name: choices_of(layer, profile.choices) for layer in profile.network.layers}

    def drawn(scatter: float) -> Mapping:
        picked = {name: own[rng.integers(len(own))] for name, own in fitting.items()}
        return Mapping({name: _scattered(c, scatter ** rng.random()) for name, c in picked.items()})

    known, new = [drawn(1.0) for _ in range(mappings)], [drawn(1.2) for _ in range(mappings)]
    with exclusive_lock(), pinned():
        seconds_of_each(profile, known)
        return {
            "microseconds": 1e6 * float(np.median(seconds_of_each(profile, known))),
            "rates never seen before": 1e6 * float(np.median(seconds_of_each(profile, new))),
        }


def _scattered(choice: Choice, factor: float) -> Choice:
    return choice if choice == DENSE else Choice(choice.scheme, choice.rate * factor)


def seconds_of_each(profile: Profile, mappings: Sequence[Mapping]) -> list[float]:
    """Seconds of every prediction."""
    found = []
    for mapping in mappings:
        start = time.perf_counter()
        profile.predict(profile.network, mapping)
        found.append(time.perf_counter() - start)
    return found


def predict_microseconds() -> Figures:
    """Microseconds of a prediction for ResNet-50."""
    found = alone(predict_times, 500, SETTINGS.seed)
    keep("predict-resnet50", found)
    return found


def targets() -> Iterator[Target]:
    """All lines, in the order of the table."""
    yield from predictions()
    for layer in GRIDS:
        what = f"resnet20 at {NETWORKS['resnet20']}, channels: coarse grid against all widths of {layer}, mean error"
        yield Target(what, None, False, partial(coarse_grid, layer))
    for network in REPEATED:
        what = f"{network}, A/A in different processes, dense and simd:8 at rate 4: share within 2 %"
        yield Target(what, 0.95, True, partial(same_again, network))
    for network in REPEATED:
        what = f"{network}, another process trains on the other core: share flagged or within 3 % of quiet"
        yield Target(what, 1.0, True, partial(beside_training, network))
    for network, shape, bound in (("resnet8", "3x8x8", 15), ("resnet8", "3x32x32", 15), ("resnet18", "3x224x224", 90)):
        yield Target(f"profile of {network} at {shape}, s", bound, False, partial(profile_seconds, network, shape))
    yield Target("predict for a ResNet-50 mapping, microseconds", 50, False, predict_microseconds)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = command_line(__doc__)
    parser.add_argument("--mappings", type=int, default=100, metavar="N", help="random mappings of each network (100)")
    parser.add_argument(
        "--pairs", type=int, default=20, metavar="N", help="A/A pairs; half as many beside training (20)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the mappings (1)")
    args = parser.parse_args(argv)
    SETTINGS.mappings, SETTINGS.pairs, SETTINGS.seed = args.mappings, args.pairs, args.seed
    print_table(targets(), args)


if __name__ == "__main__":
    main()
