"""The command ``bench network``: a network on our kernels, dense and pruned, and on other engines."""

from __future__ import annotations

from argparse import Namespace

import torch

from ..envs import build_network, default_input_shape
from ..latency import Machine, bench_network
from ..pruning import Choice, Mapping, Network, apply_mapping, capture, misfit
from ..pruning.errors import PrunemapError
from .progress import notice
from .tables import Row, milliseconds, number, show, text

_COLUMNS = (
    text("engine"),
    text("network"),
    milliseconds("median_ms", "median ms", "mad_ms"),
    milliseconds("p90_ms", "p90 ms"),
    number("of_dense", "of our dense", ".3f"),
    number("error", "error vs torch", ".1e"),
)


def network(args: Namespace) -> int:
    """Prune every convolution but the first, by magnitude, and time everything interleaved in one run."""
    shape = args.shape or default_input_shape(args.network, **args.options)
    dense = build_network(args.network, **args.options).eval()
    example = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    structure = capture(dense, example)
    mapping = _every_convolution_but_the_first(structure, Choice(args.scheme, args.rate))
    pruned = apply_mapping(dense, mapping, structure)
    notice(
        f"{args.network} {'x'.join(map(str, shape))}: {len(mapping)} layers {args.scheme}@{args.rate:g}, random weights"
    )
    found = bench_network(dense, pruned, example, args.peers, args.threads, args.isa)
    rows: list[Row] = [
        {
            "engine": row.engine,
            "network": row.network,
            "median_ms": row.measurement.median_ms,
            "mad_ms": row.measurement.mad_ms,
            "p90_ms": row.measurement.p90_ms,
            "unstable": row.measurement.unstable,
            "of_dense": row.ratio,
            "error": row.error,
        }
        for row in found
    ]
    show(rows, _COLUMNS, args.format, _title(args, found[0].measurement.machine))
    return 0


def _every_convolution_but_the_first(structure: Network, choice: Choice) -> Mapping:
    """The mapping; depthwise and linear layers stay dense.

    Raises:
        PrunemapError: When the scheme does not fit a convolution, with the reason.
    """
    convolutions = [layer for layer in structure.layers if layer.kind == "conv"][1:]
    for layer in convolutions:
        if reason := misfit(layer, choice):
            raise PrunemapError(f"layer {layer.name!r}: {choice} does not fit: {reason}")
    return Mapping({layer.name: choice for layer in convolutions})


def _title(args: Namespace, machine: Machine) -> str:
    return f"batch 1, {args.threads} thread(s), interleaved\n{machine.fingerprint()}"
