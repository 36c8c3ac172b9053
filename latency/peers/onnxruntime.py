"""ONNX Runtime, CPU provider."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from .base import PEERS, Floats, Peer, optional_module, to_onnx


@PEERS.register("onnxruntime")
class OnnxRuntime(Peer):
    """An inference session with all graph optimisations and bound buffers."""

    def load(self, model: nn.Module, example: Tensor) -> None:
        """Export, and bind the example."""
        ort = optional_module("onnxruntime")
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = ort.InferenceSession(to_onnx(model, example), options, providers=["CPUExecutionProvider"])
        self._binding = self._session.io_binding()
        self._input = np.ascontiguousarray(example.numpy())
        self._binding.bind_cpu_input(self._session.get_inputs()[0].name, self._input)
        self._binding.bind_output(self._session.get_outputs()[0].name, "cpu")

    def run(self) -> None:
        """Run once on the example."""
        self._session.run_with_iobinding(self._binding)

    def output(self) -> Floats:
        """Result of the last run."""
        return np.asarray(self._binding.copy_outputs_to_cpu()[0], dtype=np.float32)
