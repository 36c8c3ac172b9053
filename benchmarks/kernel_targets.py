"""Runs the kernels' benchmarks and prints one table: what, how much it should reach, what was measured.

    .venv/bin/python benchmarks/kernel_targets.py [--only WORD] [--out FOLDER]

Every figure comes from a `prunemap bench` command whose JSON is kept in the folder; `--only` takes those lines of the
table whose text contains the word. Measure while nothing else runs.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

Row = dict[str, Any]
NETWORKS = ("resnet18", "resnet50", "vgg16", "mobilenetv1", "mobilenetv2")
PEERS = "onnxruntime,openvino,torch"
WAYS = ("hot", "cold", "in_place")
OUT = Path(__file__).parents[1] / "build" / "bench"
Keep = Callable[[Row], bool]


@dataclass(frozen=True)
class Target:
    """One line: what is measured, the bound, whether larger is better, and how to get the number.

    Of layers there are three numbers: all hot, weights cold, in place. The first is held against the bound.
    """

    what: str
    bound: float
    at_least: bool
    measured: Callable[[], float | tuple[float, ...]]

    def line(self) -> str:
        """As a row of a markdown table."""
        found = self.measured()
        values = found if isinstance(found, tuple) else (found,)
        value = values[0]
        met = value >= self.bound if self.at_least else value <= self.bound
        sign = ">=" if self.at_least else "<="
        told = " / ".join(f"{v:.3g}" for v in values)
        return f"| {self.what} | {sign} {self.bound:g} | {told} | {'yes' if met else 'no'} |"


@cache
def bench(*words: str) -> list[Row]:
    """Rows of a `prunemap bench` command; each command runs once."""
    command = [sys.executable, "-m", "prunemap.search_runs.cli", "bench", *words, "--format", "json"]
    print(f"... prunemap bench {' '.join(words)}", file=sys.stderr, flush=True)
    text = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    rows: list[Row] = json.loads(text)
    OUT.mkdir(parents=True, exist_ok=True)
    name = "-".join(word.lstrip("-").replace(":", "").replace(",", "_") for word in words)
    (OUT / f"{name}.json").write_text(json.dumps({"command": ["prunemap", "bench", *words], "rows": rows}, indent=1))
    return rows


def kernels(network: str, schemes: str, rates: str, *more: str) -> list[Row]:
    """Layers, without the means."""
    rows = bench("kernels", "--network", network, "--scheme", schemes, "--rate", rates, *more)
    return [row for row in rows if "kind" in row]


def any_layer(row: Row) -> bool:
    """Every layer."""
    return True


def of_roof(schemes: str, rates: str, variant: str, keep: Keep = any_layer, *more: str) -> tuple[float, ...]:
    """Geometric means of the share of the roof over the pruned layers of ResNet-50 under one variant."""
    rows = [r for r in kernels("resnet50", schemes, rates, *more) if r["variant"] == variant and keep(r)]
    pruned = [r for r in rows if r["choice"] == variant and r["layer"].startswith("layer")]
    counts = [len(r["layers"]) for r in pruned]
    return tuple(
        math.exp(sum(n * math.log(r[f"{way}_of_roof"]) for n, r in zip(counts, pruned, strict=True)) / sum(counts))
        for way in WAYS
    )


def large_map(row: Row) -> bool:
    """Maps of 56 and 28 pixels."""
    return row["output"][0] in (56, 28)


def linear(network: str) -> tuple[float, ...]:
    """The worst linear layer's share of the bandwidth of the level that its weights live in."""
    rows = [r for r in kernels(network, "dense", "1") if r["kind"] == "linear"]
    return tuple(min(r[f"{way}_of_bound"] for r in rows) for way in WAYS)


def whole(network: str, variant: str, key: str) -> float:
    """One figure of the whole network's comparison."""
    rates = "1.5,4,10" if network != "vgg16" else "4,10"
    schemes = "simd:8,unstructured" if network != "vgg16" else "simd:8"
    rows = bench("network", "--network", network, "--scheme", schemes, "--rate", rates, "--peers", PEERS)
    return float(next(r[key] for r in rows if r["engine"] == "prunemap" and r["network"] == variant))


def worst_of_dense() -> float:
    """The slowest pruned network against our own dense one."""
    found = []
    for network in NETWORKS:
        whole(network, "dense", "of_dense")
        rows = bench("network", "--network", network, "--scheme", "simd:4,unstructured", "--rate", "1.5")
        found += [r["of_dense"] for r in rows]
    return max(found)


def two_threads() -> float:
    """Time of ResNet-50 under simd:8 at rate 4 on one thread over that on two."""
    one, two = (bench("network", "--network", "resnet50", "--threads", count)[1]["median_ms"] for count in ("1", "2"))
    return float(one / two)


def small_network() -> float:
    """onnxruntime's dense time over ours, for a CIFAR-size network."""
    rows = bench("network", "--network", "resnet20", "--shape", "3x32x32", "--peers", "onnxruntime")
    return 1.0 / float(rows[1]["of_peer"])


COMPILE = """
import time, torch
from prunemap.envs import build_network
from prunemap.kernels import compile_network
from prunemap.pruning import Choice, Mapping, apply_mapping, capture
model, x = build_network("resnet50").eval(), torch.zeros(1, 3, 224, 224)
network = capture(model, x)
mapping = Mapping({layer.name: Choice("simd:8", 4.0) for layer in network.layers[1:] if layer.kind == "conv"})
pruned = apply_mapping(model, mapping, network)
start = time.perf_counter()
compile_network(pruned, x)
print(time.perf_counter() - start)
"""


@cache
def compile_seconds() -> tuple[float, float]:
    """Seconds to compile ResNet-50 with an empty cache folder, and again in a new process."""
    with tempfile.TemporaryDirectory() as folder:
        runs = [
            subprocess.run(
                [sys.executable, "-c", COMPILE], check=True, stdout=subprocess.PIPE, text=True,
                env={**os.environ, "PRUNEMAP_CACHE": folder},
            ).stdout
            for _ in range(2)
        ]  # fmt: skip
    return float(runs[0]), float(runs[1])


def targets() -> Iterator[Target]:
    """All lines, in the order of the table."""
    wide, narrow = "simd:8,simd:16,block-punched:8x4,block-punched:16x4", "simd:4,block-punched:4x4"
    for schemes, reach in ((wide, 0.85), (narrow, 0.78), ("unstructured", 0.40)):
        for scheme in schemes.split(","):
            for rate in ("4", "10"):
                measured = partial(of_roof, schemes, "4,10", f"{scheme}@{rate}")
                yield Target(f"ResNet-50, {scheme} at rate {rate}, of the roof", reach, True, measured)
    for rate in ("4", "10"):
        measured = partial(of_roof, "unstructured", "4,10", f"unstructured@{rate}", large_map)
        yield Target(f"ResNet-50, unstructured at rate {rate}, 56 and 28 pixels, of the roof", 0.50, True, measured)
    for rate in ("2.25", "4", "8"):
        measured = partial(of_roof, "pattern:8", "2.25,4,8", f"pattern:8@{rate}")
        yield Target(f"ResNet-50, pattern:8 at rate {rate}, 3x3 layers, of the roof", 0.60, True, measured)
    for scheme in ("column", "filter", "channel"):
        measured = partial(of_roof, "column,filter,channel", "4", f"{scheme}@4")
        yield Target(f"ResNet-50, {scheme} at rate 4, of the roof", 0.85, True, measured)
    yield Target("ResNet-50, dense, of the roof", 0.85, True, partial(of_roof, "dense", "1", "dense"))
    for network in ("resnet50", "vgg16"):
        yield Target(f"{network}, linear layers, of their level's bandwidth", 0.80, True, partial(linear, network))
    measured = partial(of_roof, "simd:8", "4", "simd:8@4", any_layer, "--isa", "avx2")
    yield Target("ResNet-50, AVX2, simd:8 at rate 4, of the roof", 0.80, True, measured)
    yield from whole_networks()


def whole_networks() -> Iterator[Target]:
    """Lines about whole networks."""
    reach = {"4": (0.34, 0.31, 0.30, 0.42, 0.50), "10": (0.20, 0.17, 0.15, 0.30, 0.38)}
    for rate, bounds in reach.items():
        for network, bound in zip(NETWORKS, bounds, strict=True):
            measured = partial(whole, network, f"simd:8@{rate}", "of_peer")
            yield Target(f"{network}, simd:8 at rate {rate}, of the fastest peer's dense time", bound, False, measured)
    for rate, bound in (("4", 0.55), ("10", 0.28)):
        measured = partial(whole, "resnet50", f"unstructured@{rate}", "of_peer")
        yield Target(f"resnet50, unstructured at rate {rate}, of the fastest peer's dense time", bound, False, measured)
    for network in NETWORKS:
        measured = partial(whole, network, "dense", "of_peer")
        yield Target(f"{network}, dense, of the fastest peer's dense time", 1.05, False, measured)
    yield Target("ResNet-50, simd:8 at rate 4, 2 threads, speed-up over one", 1.8, True, two_threads)
    yield Target("any network, simd:4 and unstructured, rate 1.5, of our own dense", 1.03, False, worst_of_dense)
    yield Target("ResNet-50, compiling the first time, s", 8.0, False, lambda: compile_seconds()[0])
    yield Target("ResNet-50, compiling again, s", 1.0, False, lambda: compile_seconds()[1])
    yield Target("resnet20 at 32x32, simd:8 at rate 4, speed-up over onnxruntime dense", 2.5, True, small_network)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table; every line as soon as it is known."""
    global OUT
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="WORD", help="lines that contain this")
    parser.add_argument("--out", type=Path, default=OUT, metavar="FOLDER", help="where the commands' JSON goes")
    args = parser.parse_args(argv)
    OUT = args.out
    start = time.monotonic()
    print("| what | reach | measured (layers: hot / cold / in place) | met |\n|---|---|---|---|")
    for target in targets():
        if args.only in target.what:
            print(target.line(), flush=True)
    print(f"{time.monotonic() - start:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
