"""Accuracy and latency out of plain tables: problems whose optimum is known, for tests and benchmarks of agents."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..latency import Prediction
from ..pruning import canonical_choice
from ..pruning.errors import PrunemapError
from ..pruning.mapping import Choice, Mapping
from ..pruning.network import Network
from .choices import Choices


class _Table:
    """A number for every layer and choice; choices that give a layer the same mask share the first one's number.

    Args:
        choices: Layers (rows) and catalogue (columns).
        values: (layers, catalogue).
        what: Name for messages.

    Raises:
        PrunemapError: When the shape is another.
    """

    def __init__(self, choices: Choices, values: ArrayLike, what: str) -> None:
        self.values: NDArray[np.float64] = np.array(values, np.float64)
        wanted = (len(choices.network.layers), len(choices.catalogue))
        if self.values.shape != wanted:
            raise PrunemapError(f"{what} table has shape {self.values.shape}, must be (layers, catalogue) = {wanted}")
        self._cells = {
            (layer.name, canonical_choice(layer, choice)): float(row[choices.catalogue.index(choice)])
            for layer, row in zip(choices.network.layers, self.values, strict=True)
            for choice in choices.allowed[layer.name]
        }
        self._layers = {layer.name: layer for layer in choices.network.layers}

    def __getitem__(self, key: tuple[str, Choice]) -> float:
        name, choice = key
        return self._cells[name, canonical_choice(self._layers[name], choice)]

    def row(self, mapping: Mapping) -> list[float]:
        """The numbers of a mapping's layers, in execution order."""
        return [self[name, mapping[name]] for name in self._layers]

    def mean(self, mapping: Mapping) -> float:
        """Their mean."""
        return float(np.mean(self.row(mapping)))

    def digest(self) -> str:
        """Hexadecimal SHA-256 of the values."""
        return hashlib.sha256(self.values.tobytes()).hexdigest()


class LatencyTable:
    """Latency of a mapping: the sum of its layers' entries. Arguments as ``Problem.tabular``'s."""

    def __init__(self, choices: Choices, ms: ArrayLike) -> None:
        self._table = _Table(choices, ms, "latency")

    def layer_ms(self, layer: str, choice: Choice) -> float:
        """The table's entry, in ms."""
        return self._table[layer, choice]

    def predict(self, network: Network, mapping: Mapping) -> Prediction:
        """The sum over all layers; exact, so that ``low`` and ``high`` are the same."""
        ms = sum(self._table.row(mapping))
        return Prediction(ms, ms, ms)

    def digest(self) -> str:
        """Hash of the table."""
        return self._table.digest()


class AccuracyTable:
    """Accuracy of a mapping: the mean of its layers' entries, or any pure function of the mapping."""

    epochs = 0

    def __init__(self, choices: Choices, accuracy: Callable[[Mapping], float] | ArrayLike) -> None:
        if callable(accuracy):
            self._accuracy: Callable[[Mapping], float] = accuracy
            self._digest = str(getattr(accuracy, "__qualname__", type(accuracy).__qualname__))
        else:
            table = _Table(choices, accuracy, "accuracy")
            self._accuracy = table.mean
            self._digest = table.digest()

    @property
    def dense(self) -> float:
        """Accuracy of the dense network."""
        return self(Mapping(), 0)

    def __call__(self, mapping: Mapping, seed: int) -> float:
        """Accuracy of the mapping, the same for every seed."""
        return float(self._accuracy(mapping))

    def digest(self) -> str:
        """Hash of the table, or the function's name."""
        return self._digest
