"""Accuracies that come from training: one-shot pruning of the dense weights and fast retraining."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from torch import nn

from ..pruning import capture, make_masks
from ..pruning.mapping import Mapping
from ..pruning.network import Network
from .accuracy import Recipe, fast_retrain, train_dense
from .datasets import Dataset
from .networks import NETWORKS, build_network
from .options import option_names
from .spec import NetworkSpec, ProblemSpec
from .training import arithmetic, evaluate_accuracy
from .weights import load_weights

Progress = Callable[[int, int, str], None]
"""Called with the units of work done, their total, and what is going on."""


@dataclass(frozen=True, eq=False)
class TrainedAccuracy:
    """Validation accuracy after magnitude pruning and the recipe's fast retraining (Gong et al., section 5.1).

    Attributes:
        model: The trained dense network, on the CPU and in evaluation mode; not to be changed.
        network: Its structure.
        data: What it is trained and validated on.
        recipe: How.
        seed: Seed of the problem.
    """

    model: nn.Module
    network: Network
    data: Dataset
    recipe: Recipe
    seed: int

    @classmethod
    def from_spec(
        cls, spec: ProblemSpec, data: Dataset, network: Network, progress: Progress | None = None
    ) -> TrainedAccuracy:
        """Load the dense network's weights, train it, or take it from the cache folder.

        Args:
            spec: The problem.
            data: Its data.
            network: What ``structure`` gives of both.
            progress: Told how far training is.

        Raises:
            PrunemapError: For given weights that do not fit the network.
        """
        total = spec.recipe.pretrain_epochs

        def epoch_done(done: int) -> None:
            if progress:
                progress(done, total, "training the dense network")

        if spec.network.weights is None:
            options = _network_options(spec.network, data)
            model = train_dense(spec.network.name, options, data, spec.recipe, spec.seed, epoch_done)
        else:
            model = _untrained(spec, data)
            load_weights(model, spec.network.weights)
        return cls(model.eval(), network, data, spec.recipe, spec.seed)

    @property
    def epochs(self) -> int:
        """Training epochs of one accuracy."""
        return self.recipe.fast_epochs

    @cached_property
    def dense(self) -> float:
        """Validation accuracy of the dense network as it was trained, as a fraction."""
        return evaluate_accuracy(self.model, self.data.validation)

    def __call__(self, mapping: Mapping, seed: int) -> float:
        """Accuracy of a mapping as a fraction; the same bits in every process on one kind of processor."""
        masks = make_masks(self.model, mapping, self.network)
        return fast_retrain(self.model, masks, self.data, self.recipe, seed)

    def digest(self) -> str:
        """Hash of dense weights, data, recipe, seed, torch version and processor capability."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        # The structure too: the forward of a user's own network may change while its weights do not.
        facts = {
            "structure": [self.network.layers, self.network.nodes],
            "data": self.data.digest,
            "phase": asdict(self.recipe.fast),
            "seed": self.seed,
            "arithmetic": arithmetic(self.recipe.device),
        }
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=asdict).encode())
        for name, value in self.model.state_dict().items():
            digest.update(name.encode())
            digest.update(value.numpy().tobytes())
        return digest.hexdigest()


def structure(spec: ProblemSpec, data: Dataset) -> Network:
    """The structure of a problem's network; nothing is trained.

    Raises:
        PrunemapError: For options that the network does not take, or a module inside it that cannot be captured.
    """
    return capture(_untrained(spec, data), data.train.images[:1])


def _untrained(spec: ProblemSpec, data: Dataset) -> nn.Module:
    return build_network(spec.network.name, seed=spec.seed, **_network_options(spec.network, data))


def _network_options(spec: NetworkSpec, data: Dataset) -> dict[str, Any]:
    """The options given, with the data's classes and image channels where a registered network takes them."""
    own = {} if ":" in spec.name else {"num_classes": data.classes, "in_channels": data.input_shape[0]}
    taken = option_names(NETWORKS[spec.name].build) if own else ()
    return {name: value for name, value in own.items() if name in taken} | dict(spec.options)
