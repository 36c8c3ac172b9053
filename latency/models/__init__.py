"""Latency models: from the rows of a profile to the latency of a mapping. One model per file."""

from .base import COVERAGE, MODELS, LatencyModel, Prediction

__all__ = ["COVERAGE", "MODELS", "LatencyModel", "Prediction"]
