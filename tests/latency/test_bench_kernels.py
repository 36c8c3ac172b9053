"""Roofs and layers: what is counted is right, and what is measured hangs together; times are not judged."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from prunemap.kernels import _engine, isas
from prunemap.latency import KernelRow, bench_kernels, measure_roof, shares, synthesise, time_shares
from prunemap.latency.bench_kernels import WAYS, Way
from prunemap.latency.roof import FMA_LOOPS, cache_sizes, stream_bytes, sweep_bytes
from prunemap.pruning import Choice, Mapping, Network, PrunemapError, apply_mapping

EXAMPLE = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def counted_flops(weight: torch.Tensor, shape: tuple[int, int], padding: int) -> int:
    """Two per non-zero weight and output pixel, for taps that ever meet the map; stride 1, output as large as input."""
    flops = 0
    for r, s in np.ndindex(*weight.shape[2:]):
        rows = [y for y in range(shape[0]) if 0 <= y + r - padding < shape[0]]
        columns = [x for x in range(shape[1]) if 0 <= x + s - padding < shape[1]]
        if rows and columns:
            flops += 2 * int((weight[:, :, r, s] != 0).sum()) * math.prod(shape)
    return flops


@pytest.mark.parametrize("isa", isas())
def test_a_roof_is_plausible(isa: str) -> None:
    roof = measure_roof(isa)
    widths = {lanes for lanes, *_ in _engine.families(isa)}
    assert {(f.loop, f.lanes) for f in roof.fma if f.threads == 1} == {(n, w) for n in FMA_LOOPS for w in widths}
    assert {f.threads for f in roof.fma} == {1, 2}
    assert roof.gflops == max(f.gflops for f in roof.fma if f.loop == "registers" and f.threads == 1) > 0
    assert [b.level for b in roof.bandwidths] == ["L1", "L2", "L3", "DRAM"]
    assert roof.bandwidths[-1].read >= stream_bytes() >= sweep_bytes()
    assert stream_bytes() >= min(4 * cache_sizes()["L3"], 512 << 20)  # of less the cache keeps a part
    assert roof.bandwidth(1) == roof.bandwidths[0].gbps
    assert roof.bandwidth(math.inf) == roof.bandwidths[-1].gbps
    assert roof.to_dict()["gflops"] == roof.gflops


def test_caches_grow_from_level_to_level() -> None:
    sizes = list(cache_sizes().values())
    assert sizes == sorted(sizes)
    assert sizes[0] >= 4096


@pytest.mark.parametrize(
    ("loop", "flops", "moved"), [("registers", 2, 0), ("aligned", 2, 4), ("misaligned", 2, 4), ("read", 0, 4)]
)
def test_what_a_loop_does_is_counted(loop: str, flops: int, moved: int) -> None:
    made = _engine.RoofLoop("portable", loop, 4, 1000, 3, 2)
    floats = made.size // 4
    assert 1000 <= floats < 1100
    assert made.flops == flops * floats * 3 * 2
    assert made.bytes == moved * floats * 3 * 2
    assert (made.time(3) > 0).all()


def test_a_broadcast_feeds_every_lane() -> None:
    made = _engine.RoofLoop("portable", "broadcast", 4, 1000, 1, 1)
    assert made.flops == 2 * 4 * made.bytes / 4


@pytest.mark.parametrize(
    "wrong",
    [("sse", "read", 4, 9, 1, 1), ("portable", "write", 4, 9, 1, 1), ("portable", "read", 5, 9, 1, 1),
     ("portable", "read", 4, 0, 1, 1), ("portable", "read", 4, 9, 0, 1), ("portable", "read", 4, 9, 1, 300)],
)  # fmt: skip
def test_impossible_loops_are_refused(wrong: tuple[str, str, int, int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"roof|ISA"):
        _engine.RoofLoop(*wrong)


@pytest.mark.parametrize("scheme", ["simd:8", "unstructured"])
def test_layers_are_counted_and_timed(network: Network, scheme: str) -> None:
    model = synthesise(network)
    pruned = apply_mapping(model, Mapping({"conv1": Choice(scheme, 4.0), "conv2": Choice(scheme, 2.0)}), network)
    rows = bench_kernels(model, pruned, EXAMPLE)
    layers = {name: row for row in rows for name in row.layers}
    assert set(layers) == {layer.name for layer in network.layers}
    for layer in network.layers:
        row = layers[layer.name]
        weight = pruned.get_parameter(f"{layer.name}.weight").detach()
        weight = weight.reshape(*weight.shape[:2], *layer.kernel)
        assert row.flops == counted_flops(weight, layer.out_shape[1:], layer.padding[0])
        assert row.kind == layer.kind
        assert row.candidate
        for way in map(row.way, WAYS):
            assert way.ms > 0
            assert way.dense_ms > 0
            assert way.bound_ms >= row.flops / row.roof_gflops / 1e6
            assert math.isfinite(way.bound_ms)
    assert layers["conv1"].kept == pytest.approx(0.25, abs=0.05)


def test_only_the_layers_asked_for_are_timed(network: Network) -> None:
    model = synthesise(network)
    (row,) = bench_kernels(model, model, EXAMPLE, ["conv2"])
    assert row.layers == ("conv2",)
    assert row.kept == 1.0
    with pytest.raises(PrunemapError, match="no layer to time"):
        bench_kernels(model, model, EXAMPLE, [])
    with pytest.raises(PrunemapError, match="unknown ISA 'sse'"):
        bench_kernels(model, model, EXAMPLE, isa="sse")


def test_means_weigh_layers_and_times() -> None:
    def row(count: int, flops: int, ms: float) -> KernelRow:
        way = Way(ms=ms, dense_ms=2 * ms, bound_ms=ms / 4)
        names = tuple(f"layer{i}" for i in range(count))
        return KernelRow(
            names, "conv", (8, 8, 1, 1), (1, 1), (4, 4), 0.5, flops, "a", "b", 1, 1, 1, 100.0, way, way, way
        )

    rows = [row(3, 50_000_000, 1.0), row(1, 25_000_000, 2.0)]  # half and an eighth of the roof
    for way in WAYS:
        mean, together = shares(rows, way), time_shares(rows, way)
        assert mean["of_roof"] == pytest.approx(np.exp((3 * np.log(0.5) + np.log(0.125)) / 4))
        assert together["of_roof"] == pytest.approx((3 * 0.5 + 0.25) / 5.0)
        for found in (mean, together):
            assert found["of_bound"] == pytest.approx(0.25)
            assert found["of_dense"] == pytest.approx(0.5)
