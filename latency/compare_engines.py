"""One network on our kernels, dense and pruned, against other engines: checked, then timed in interleaved runs."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..kernels import compile_network
from ..pruning.errors import PrunemapError
from .cache import exclusive_lock
from .machine import pinned
from .measure import Measurement, Timed, measure_interleaved
from .peers import PEERS, Peer
from .peers.base import Floats

TOLERANCE = 1e-4
"""Largest error of an engine whose time is worth telling; float32 engines differ by about 1e-6."""


@dataclass(frozen=True)
class EngineRow:
    """One engine running one network.

    Attributes:
        engine: ``prunemap`` or the peer's name.
        network: ``dense``, or which pruned variant.
        measurement: Its latency.
        error: L2 error of its output against torch with the same weights, relative to how far the example moves torch's
            output from where a black image leaves it.
        ratio: Its median over that of our dense network: below 1 is faster.
        peer_ratio: Its median over that of the fastest peer, which runs the dense network; None without peers.
    """

    engine: str
    network: str
    measurement: Measurement
    error: float
    ratio: float
    peer_ratio: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class _Contender:
    engine: str
    network: str
    subject: Timed
    error: float


def bench_network(
    model: nn.Module,
    pruned: Mapping[str, nn.Module],
    example: Tensor,
    peers: Sequence[str] = (),
    threads: int = 1,
    isa: str = "auto",
) -> list[EngineRow]:  # fmt: skip
    """Compile all networks, load the dense one into the peers, check every output, time all of them interleaved.

    Args:
        model: The dense network.
        pruned: The same with zeros, for instance from ``apply_mapping``, by the name that rows show.
        example: (N, C, H, W) float32 input; shapes are specialised on it.
        peers: Names of peers.
        threads: Threads of every engine.
        isa: Instruction set of our kernels.

    Returns:
        Rows: ours dense, ours pruned in order, then the peers with the dense network.

    Raises:
        PrunemapError: For an unknown or missing peer, or an engine whose output is wrong.
    """
    factories = {name: PEERS[name] for name in peers}
    with exclusive_lock(), pinned(threads):
        contenders = [
            _ours("dense", model, example, threads, isa),
            *(_ours(label, variant, example, threads, isa) for label, variant in pruned.items()),
            *(_theirs(name, factory(model, example, threads), model, example) for name, factory in factories.items()),
        ]
        measured = measure_interleaved([contender.subject for contender in contenders])
    ours = measured[0].median_ms
    peer = min((found.median_ms for found in measured[1 + len(pruned) :]), default=None)
    return [
        EngineRow(c.engine, c.network, m, c.error, m.median_ms / ours, None if peer is None else m.median_ms / peer)
        for c, m in zip(contenders, measured, strict=True)
    ]


def _ours(label: str, model: nn.Module, example: Tensor, threads: int, isa: str) -> _Contender:
    compiled = compile_network(model, example, threads, isa)
    return _checked("prunemap", label, compiled, np.asarray(compiled(example.numpy())), model, example)


def _theirs(name: str, peer: Peer, model: nn.Module, example: Tensor) -> _Contender:
    peer.run()
    return _checked(name, "dense", peer, peer.output(), model, example)


def _checked(
    engine: str, network: str, subject: Timed, result: Floats, model: nn.Module, example: Tensor
) -> _Contender:  # fmt: skip
    wanted, black = _outputs(model, example)
    moved = float(np.linalg.norm(wanted - black))
    if not moved > TOLERANCE * float(np.linalg.norm(wanted)):
        raise PrunemapError(f"{network} network: its output does not depend on its input: nothing to check")
    error = float(np.linalg.norm(result - wanted)) / moved
    if not error <= TOLERANCE:
        raise PrunemapError(f"{engine}, {network} network: its output differs from torch's by {error:.1e} (relative)")
    return _Contender(engine, network, subject, error)


def _outputs(model: nn.Module, example: Tensor) -> tuple[Floats, Floats]:
    """What torch makes of the example, and of zeros."""
    reference = copy.deepcopy(model).eval()
    with torch.inference_mode():
        wanted, black = (reference(image).numpy() for image in (example, torch.zeros_like(example)))
    return np.asarray(wanted, dtype=np.float32), np.asarray(black, dtype=np.float32)
