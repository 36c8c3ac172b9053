"""Runs the kernels' benchmarks and prints one table: what, how much it should reach, what was measured.

    .venv/bin/python benchmarks/kernel_targets.py [--only WORD] [--out FOLDER]

Every figure comes from a `prunemap bench` command whose JSON is kept in the folder; `--only` takes those lines of the
table whose text contains the word. Measure while nothing else runs.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial

from targets import Figures, Row, Target, bench_once, command_line, print_table

NETWORKS = ("resnet18", "resnet50", "vgg16", "mobilenetv1", "mobilenetv2")
PEERS = "onnxruntime,openvino,torch"
WAYS = {"hot": "hot", "weights cold": "cold", "in place": "in_place"}
"""What layers are measured as; all hot is held against the bounds."""
Keep = Callable[[Row], bool]


def kernels(network: str, schemes: str, rates: str, *more: str) -> list[Row]:
    """Layers, without the means."""
    rows = bench_once("kernels", "--network", network, "--scheme", schemes, "--rate", rates, *more)
    return [row for row in rows if "kind" in row]


def any_layer(row: Row) -> bool:
    """Every layer."""
    return True


def of_roof(schemes: str, rates: str, variant: str, keep: Keep = any_layer, *more: str) -> Figures:
    """Geometric means of the share of the roof over the pruned layers of ResNet-50 under one variant."""
    rows = [r for r in kernels("resnet50", schemes, rates, *more) if r["variant"] == variant and keep(r)]
    pruned = [r for r in rows if r["choice"] == variant and r["layer"].startswith("layer")]
    counts = [len(r["layers"]) for r in pruned]
    return {
        name: math.exp(
            sum(n * math.log(r[f"{way}_of_roof"]) for n, r in zip(counts, pruned, strict=True)) / sum(counts)
        )
        for name, way in WAYS.items()
    }


def large_map(row: Row) -> bool:
    """Maps of 56 and 28 pixels."""
    return row["output"][0] in (56, 28)


def linear(network: str) -> Figures:
    """The worst linear layer's share of the bandwidth of the level that its weights live in."""
    rows = [r for r in kernels(network, "dense", "1") if r["kind"] == "linear"]
    return {name: min(r[f"{way}_of_bound"] for r in rows) for name, way in WAYS.items()}


def whole(network: str, variant: str, key: str) -> Figures:
    """One figure of the whole network's comparison."""
    rates = "1.5,4,10" if network != "vgg16" else "4,10"
    schemes = "simd:8,unstructured" if network != "vgg16" else "simd:8"
    rows = bench_once("network", "--network", network, "--scheme", schemes, "--rate", rates, "--peers", PEERS)
    row = next(r for r in rows if r["engine"] == "prunemap" and r["network"] == variant)
    return {key: float(row[key]), "ms": row["median_ms"]}


def of_dense(network: str) -> Figures:
    """The slowest of some hardly pruned networks against our own dense one."""
    schemes = "simd:4,unstructured,column,filter"
    rows = bench_once("network", "--network", network, "--scheme", schemes, "--rate", "1.05,1.5")
    found = {r["network"]: float(r["of_dense"]) for r in rows if r["network"] != "dense"}
    return {"slowest": max(found.values()), **found}


def two_threads() -> Figures:
    """Time of ResNet-50 under simd:8 at rate 4 on one thread over that on two."""
    one, two = (
        bench_once("network", "--network", "resnet50", "--threads", count)[1]["median_ms"] for count in ("1", "2")
    )
    return {"speed-up": float(one / two)}


def small_network() -> Figures:
    """onnxruntime's dense time over ours, for a CIFAR-size network."""
    rows = bench_once("network", "--network", "resnet20", "--shape", "3x32x32", "--peers", "onnxruntime")
    return {"speed-up": 1.0 / float(rows[1]["of_peer"])}


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
    for network in NETWORKS:
        what = f"{network}, four schemes at rates 1.05 and 1.5, of our own dense"
        yield Target(what, 1.03, False, partial(of_dense, network))
    yield Target("ResNet-50, compiling the first time, s", 8.0, False, lambda: {"s": compile_seconds()[0]})
    yield Target("ResNet-50, compiling again, s", 1.0, False, lambda: {"s": compile_seconds()[1]})
    yield Target("resnet20 at 32x32, simd:8 at rate 4, speed-up over onnxruntime dense", 2.5, True, small_network)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    print_table(targets(), command_line(__doc__).parse_args(argv))


if __name__ == "__main__":
    main()
