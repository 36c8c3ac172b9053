"""The command ``bench network``: a network on our kernels, dense and pruned, and on other engines."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass

import numpy as np
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
    milliseconds("p10_ms", "p10 ms"),
    milliseconds("p90_ms", "p90 ms"),
    number("of_dense", "of our dense", ".3f"),
    number("of_peer", "of fastest peer", ".3f"),
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
    _settle(model, shape)
    return Subject(model, example, capture(model, example), f"{args.network} {'x'.join(map(str, shape))}")


@dataclass(frozen=True)
class Variant:
    """The network pruned: how, in which layers, and the module."""

    choice: Choice
    layers: tuple[str, ...]
    model: nn.Module


def prune(subject: Subject, args: Namespace) -> list[Variant]:
    """The network pruned by every scheme and rate that the command names: every convolution but the first.

    Depthwise layers, linear layers and convolutions that the scheme does not fit stay dense.

    Raises:
        PrunemapError: When a scheme fits no convolution, with the first's reason.
    """
    choices = dict.fromkeys(Choice(scheme, rate) for scheme in args.scheme for rate in args.rate)
    return [_pruned(subject, choice, _fitting(subject, choice)) for choice in choices]


def _pruned(subject: Subject, choice: Choice, layers: tuple[str, ...]) -> Variant:
    model = apply_mapping(subject.model, Mapping(dict.fromkeys(layers, choice)), subject.structure)
    with torch.no_grad():
        for name in layers:
            before, weight = (m.get_parameter(f"{name}.weight") for m in (subject.model, model))
            weight.mul_(before.norm() / weight.norm())
    _settle(model, subject.structure.input_shape)
    return Variant(choice, layers, model)


def _settle(model: nn.Module, shape: tuple[int, ...]) -> None:
    """Batch norms take over what random images give: in deep random networks no signal would be left to compare."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    model.train()
    with torch.no_grad():
        model(torch.randn(2, *shape, generator=torch.Generator().manual_seed(1)))
    model.eval()


def _fitting(subject: Subject, choice: Choice) -> tuple[str, ...]:
    convolutions = [layer for layer in subject.structure.layers if layer.kind == "conv"][1:]
    reasons = {layer.name: misfit(layer, choice) for layer in convolutions}
    layers = tuple(name for name, reason in reasons.items() if reason is None)
    if reasons and not layers:
        name, reason = next(iter(reasons.items()))
        raise PrunemapError(f"layer {name!r}: {choice} does not fit: {reason}")
    dense = f"; it does not fit {len(reasons) - len(layers)} others" if len(reasons) > len(layers) else ""
    notice(f"{subject.title}: {len(layers)} convolutions {choice}, random weights{dense}")
    return layers


def network(args: Namespace) -> int:
    """Prune every convolution but the first, by magnitude, in every way asked for; time all interleaved in one run."""
    subject = load(args)
    variants = {str(variant.choice): variant.model for variant in prune(subject, args)}
    found = bench_network(subject.model, variants, subject.example, args.peers, args.threads, args.isa)
    rows: list[Row] = [
        {
            "engine": row.engine,
            "network": row.network,
            "median_ms": row.measurement.median_ms,
            "mad_ms": row.measurement.mad_ms,
            "p10_ms": float(np.percentile(row.measurement.samples_ms, 10)),
            "p90_ms": row.measurement.p90_ms,
            "unstable": row.measurement.unstable,
            "disturbed": row.measurement.disturbed,
            "of_dense": row.ratio,
            "of_peer": row.peer_ratio,
            "error": row.error,
        }
        for row in found
    ]
    show(rows, _COLUMNS, args.format, _title(args, found[0].measurement.machine))
    return 0


def _title(args: Namespace, machine: Machine) -> str:
    return f"batch 1, {args.threads} thread(s), interleaved\n{machine.fingerprint()}"
