"""PyTorch itself, eager, channels last."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn

from ..batches import Samples
from .base import PEERS, Floats, Peer


@PEERS.register("torch")
class TorchEager(Peer):
    """The module as it is, its weights and input in channels-last order, without gradients."""

    def load(self, model: nn.Module, example: Tensor) -> None:
        """Copy the model into channels-last order."""
        layout = torch.channels_last
        self._model = copy.deepcopy(model).eval().to(memory_format=layout)  # type: ignore[call-overload]
        self._input = example.to(memory_format=layout)
        self._output = torch.empty(0)

    def run(self) -> None:
        """Run once on the example."""
        with torch.inference_mode():
            self._output = self._model(self._input)

    def time(self, repeats: int) -> Samples:
        """As ``Peer.time``, with torch's number of threads set meanwhile."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            return super().time(repeats)
        finally:
            torch.set_num_threads(before)

    def output(self) -> Floats:
        """Result of the last run."""
        return np.asarray(self._output.numpy(), dtype=np.float32)
