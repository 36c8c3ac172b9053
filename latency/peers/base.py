"""What an engine to compare with looks like."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...pruning.errors import PrunemapError
from ...pruning.registry import Registry
from ..batches import Samples

Floats = NDArray[np.float32]


class Peer(ABC):
    """A network loaded into another engine, for inputs of one shape.

    It is timed from Python around the engine's own call, with input and output buffers bound beforehand: a few
    microseconds more than our engine, which counts inside C++.
    """

    isa = "auto"

    def __init__(self, model: nn.Module, example: Tensor, threads: int) -> None:
        """Load ``model``.

        Args:
            model: In evaluation mode.
            example: (N, C, H, W) float32 input; the engine may specialise on its shape.
            threads: Threads to run on.

        Raises:
            PrunemapError: When the engine is not installed, or cannot take the model.
        """
        self.threads = threads
        self.load(model, example)

    @abstractmethod
    def load(self, model: nn.Module, example: Tensor) -> None:
        """Prepare ``run`` on ``example``."""

    @abstractmethod
    def run(self) -> None:
        """Run once on the example."""

    @abstractmethod
    def output(self) -> Floats:
        """Result of the last run."""

    def time(self, repeats: int) -> Samples:
        """Seconds of each of ``repeats`` runs, shape (repeats,)."""
        ticks = [time.perf_counter_ns()]
        for _ in range(repeats):
            self.run()
            ticks.append(time.perf_counter_ns())
        return np.diff(np.array(ticks, dtype=np.float64)) / 1e9


PEERS: Registry[type[Peer]] = Registry("peer", __package__ or __name__.rpartition(".")[0])


def optional_module(name: str) -> ModuleType:
    """Import an engine.

    Raises:
        PrunemapError: When it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise PrunemapError(f"{name} is not installed ({error}); pip install 'prunemap[peers]'") from None


def to_onnx(model: nn.Module, example: Tensor) -> bytes:
    """The model as a serialised ONNX graph for inputs of the example's shape.

    Raises:
        PrunemapError: When the exporter is not installed or cannot export the model.
    """
    optional_module("onnxscript")
    with quiet():
        try:
            program = torch.onnx.export(model, (example,), dynamo=True, verbose=False)
        except Exception as error:  # The exporter's own, and whatever the model's forward raises.
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise PrunemapError(f"cannot export {type(model).__name__} to ONNX: {first}") from error
    assert program is not None
    return bytes(program.model_proto.SerializeToString())


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what the exporters print, log and warn to themselves."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
