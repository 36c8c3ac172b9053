"""How long `predict` takes: microseconds per mapping, for a network and a latency model.

    .venv/bin/python benchmarks/predict_speed.py [--network resnet50] [--shape 3x224x224] [--model table]

Nothing is measured but `predict` itself: the profile's times are made up (so much per kept weight and output pixel),
since they do not change what a prediction costs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch

from prunemap.envs import build_network
from prunemap.latency import MODELS, Profile
from prunemap.latency.machine import machine
from prunemap.latency.probes import Probe, catalogue, narrows
from prunemap.latency.rows import Row, Survey, Timing
from prunemap.pruning import Choice, Mapping, Network, canonical_mapping, capture, live_counts, misfit

SCHEMES = ("unstructured", "simd:8", "simd:16", "block-punched:8x4", "pattern:8", "column", "filter", "channel")
RATES = (1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
REMOVES_CHANNELS = {"channels": ("filter", "channel"), "contribution": ("filter",)}
PER_MAC = 1e-8
SHORTEST = 1e-3
ROUNDS = 9


def invented_profile(network: Network, model: str, choices: Sequence[Choice]) -> Profile:
    """A profile whose times follow a rule instead of a machine."""
    rng = np.random.default_rng(0)
    rows = [
        row
        for number, probe in enumerate(MODELS[model].probes(network, choices, 0))
        for row in _rows(network, number, probe, rng)
    ]
    dense, constant = _timing(sum(row.ms for row in rows if row.probe == 0)), _timing(0.1)
    survey = Survey(tuple(rows), dense, constant)
    return Profile(network, tuple(choices), 1, 0, machine("auto"), survey, model)


def _timing(ms: float) -> Timing:
    return Timing(ms, ms / 200, (ms,) * 9)


def _rows(network: Network, number: int, probe: Probe, rng: np.random.Generator) -> Iterator[Row]:
    mapping = canonical_mapping(network, probe.mapping)
    counts = live_counts(network, mapping)
    for layer in network.layers:
        if probe.mixed and narrows(network, layer.name, mapping):
            continue
        count, strided = counts[layer.name], layer.stride != (1, 1)
        staging = 1e-6 * count.live_in * layer.in_shape[1] * layer.in_shape[2] if strided else 0.0
        timing = _timing(SHORTEST + staging + PER_MAC * count.macs * rng.uniform(0.9, 1.1))
        yield Row(
            probe=number, mixed=probe.mixed, layer=layer.name, choice=mapping[layer.name],
            given=count.live_in, live_in=count.live_in, live_out=count.live_out, stored=count.live_out,
            kept=count.kept_weights / layer.weights, **vars(timing), staging_ms=staging, staged=strided,
            planes=count.live_in if strided else 0, together=1, unstable=False,
        )  # fmt: skip


def drawn(network: Network, schemes: Sequence[str], rates: Sequence[float], rng: np.random.Generator) -> Mapping:
    """A choice for every layer, each as likely as any other that fits."""
    chosen = {}
    for layer in network.layers:
        fitting = [c for c in catalogue(schemes, rates) if misfit(layer, c) is None]
        chosen[layer.name] = fitting[rng.integers(len(fitting))]
    return Mapping(chosen)


def microseconds(predict: Callable[[Mapping], object], mappings: Sequence[Mapping], rounds: int) -> float:
    """Median over mappings of the quickest of some rounds; between two rounds of one come all others."""
    taken = np.empty((rounds, len(mappings)))
    for own in taken:
        for index, mapping in enumerate(mappings):
            start = time.perf_counter()
            predict(mapping)
            own[index] = time.perf_counter() - start
    return float(1e6 * np.median(taken.min(axis=0)))


def lines(network: Network, model: str, count: int) -> Iterator[tuple[str, float]]:
    """Kinds of mappings and what a prediction of one takes."""
    schemes = REMOVES_CHANNELS.get(model, SCHEMES)
    profile = invented_profile(network, model, catalogue(schemes, RATES))
    predict, rng = partial(profile.predict, network), np.random.default_rng(1)
    known = [drawn(network, schemes, RATES, rng) for _ in range(count)]
    new = [drawn(network, schemes, np.exp(rng.uniform(0.0, np.log(16.0), 1)).tolist(), rng) for _ in range(count)]
    for mapping in (Mapping(), *known):
        predict(mapping)
    yield "dense", microseconds(predict, [Mapping()], ROUNDS)
    # Nothing is kept of whole mappings: one that was predicted before costs as much as one made of known choices.
    yield "every layer a choice that was seen before", microseconds(predict, known, ROUNDS)
    yield "every layer at a rate never seen before", microseconds(predict, new, 1)


def main(argv: Sequence[str] | None = None) -> None:
    """Print one row per model and kind of mapping."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet50")
    parser.add_argument("--shape", default="3x224x224")
    parser.add_argument("--model", default="table,piecewise-linear,channels", help="names of latency models")
    parser.add_argument("--mappings", type=int, default=200, help="how many random ones of each kind")
    args = parser.parse_args(argv)
    network = capture(build_network(args.network), torch.zeros(1, *map(int, args.shape.split("x"))))
    print(f"{args.network}, {len(network.layers)} layers\n\n| model | mapping | microseconds |\n|---|---|---|")
    for model in args.model.split(","):
        for kind, taken in lines(network, model, args.mappings):
            print(f"| {model} | {kind} | {taken:.0f} |", flush=True)


if __name__ == "__main__":
    main()
