"""The command ``bench network``: a network on our kernels, dense and pruned, and on other engines."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass

import torch
from torch import Tensor, nn

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


@dataclass(frozen=True)
class Subject:
    """A network to measure: the module with random weights, an input, its structure, and what to call it."""

    model: nn.Module
    example: Tensor
    structure: Network
    title: str


def load(args: Namespace) -> Subject:
    """Build the network that the command's options name."""
    shape = args.shape or default_input_shape(args.network, **args.options)
    model = build_network(args.network, **args.options).eval()
    example = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    return Subject(model, example, capture(model, example), f"{args.network} {'x'.join(map(str, shape))}")


def prune(structure: Network, choice: Choice) -> Mapping:
    """The choice for every convolution but the first; depthwise, linear and layers that it does not fit stay dense.

    Raises:
        PrunemapError: When it fits no convolution, with the first's reason.
    """
    convolutions = [layer for layer in structure.layers if layer.kind == "conv"][1:]
    reasons = {layer.name: reason for layer in convolutions if (reason := misfit(layer, choice))}
    if convolutions and len(reasons) == len(convolutions):
        name, reason = next(iter(reasons.items()))
        raise PrunemapError(f"layer {name!r}: {choice} does not fit: {reason}")
    if reasons:
        notice(f"{choice} does not fit {len(reasons)} of {len(convolutions)} convolutions, which stay dense")
    return Mapping({layer.name: choice for layer in convolutions if layer.name not in reasons})


def network(args: Namespace) -> int:
    """Prune every convolution but the first, by magnitude, and time everything interleaved in one run."""
    subject = load(args)
    choice = Choice(args.scheme, args.rate)
    mapping = prune(subject.structure, choice)
    pruned = apply_mapping(subject.model, mapping, subject.structure)
    notice(f"{subject.title}: {len(mapping)} layers {choice}, random weights")
    found = bench_network(subject.model, pruned, subject.example, args.peers, args.threads, args.isa)
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


def _title(args: Namespace, machine: Machine) -> str:
    return f"batch 1, {args.threads} thread(s), interleaved\n{machine.fingerprint()}"
