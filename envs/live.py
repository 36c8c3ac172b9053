"""Latency of the compiled network, measured at the end of an episode."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

from ..kernels import CompiledNetwork, compile_network
from ..latency import exclusive_lock, measure_interleaved, pinned
from ..pruning import apply_mapping
from ..pruning.mapping import Mapping
from .evaluation import Evaluation
from .problem import Problem
from .spec import LatencySpec


class LiveLatency:
    """Measures mappings of one problem against its dense network, in interleaved runs of both.

    Args:
        problem: A problem with weights.

    Raises:
        PrunemapError: For a problem made of tables.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._model = problem.model

    def measured(self, evaluation: Evaluation) -> Evaluation:
        """The evaluation with measured latency instead of predicted, and the reward of that.

        What was refused for its predicted latency was not trained and keeps its reward.
        """
        if evaluation.accuracy is None and evaluation.failed is None:
            return evaluation
        # Compiling times kernels, too.
        with exclusive_lock(), pinned(self._settings.threads):
            dense, pruned = measure_interleaved([self._dense, self._compiled(evaluation.mapping)])
        reward = self._problem.reward
        latency = reward.latency(pruned.median_ms, dense.median_ms)
        return replace(
            evaluation,
            latency_ms=pruned.median_ms,
            latency_fraction=pruned.median_ms / dense.median_ms,
            reward=reward.value(evaluation.accuracy or 0.0, latency),
        )

    @cached_property
    def _dense(self) -> CompiledNetwork:
        return self._compiled(Mapping())

    def _compiled(self, mapping: Mapping) -> CompiledNetwork:
        problem = self._problem
        pruned = apply_mapping(self._model, mapping, problem.network)
        return compile_network(pruned, problem.data.train.images[:1], self._settings.threads, self._settings.isa)

    @property
    def _settings(self) -> LatencySpec:
        return self._problem.spec.latency if self._problem.spec else LatencySpec()
