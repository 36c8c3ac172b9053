"""OpenVINO, CPU device."""

from __future__ import annotations

import io
import sys
from types import ModuleType

import numpy as np
from torch import Tensor, nn

from .base import PEERS, Floats, Peer, optional_module, to_onnx


@PEERS.register("openvino")
class OpenVino(Peer):
    """One inference request in float32: by default OpenVINO computes in bfloat16 where the CPU has it."""

    def load(self, model: nn.Module, example: Tensor) -> None:
        """Export, compile for the CPU and set the example."""
        openvino = _openvino()
        core = openvino.Core()
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": self.threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }
        graph = core.read_model(io.BytesIO(to_onnx(model, example)))
        self._request = core.compile_model(graph, "CPU", settings).create_infer_request()
        self._input = np.ascontiguousarray(example.numpy())
        self._request.set_input_tensor(openvino.Tensor(self._input, shared_memory=True))

    def run(self) -> None:
        """Run once on the example."""
        self._request.infer()

    def output(self) -> Floats:
        """Result of the last run."""
        return np.array(self._request.get_output_tensor().data, dtype=np.float32)


def _openvino() -> ModuleType:
    """The package without its telemetry: that would call home from a thread of its own, beside what is measured.

    Raises:
        PrunemapError: When it is not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # importing it fails from now on
    return optional_module("openvino")
