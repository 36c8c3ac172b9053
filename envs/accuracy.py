"""The accuracy of a pruned network: dense weights made once, then fast or full retraining from them."""

from __future__ import annotations

import copy
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from ..latency.cache import cache_folder
from ..pruning import Masks, capture
from .datasets import Dataset
from .networks import build_network
from .options import Positive
from .training import Phase, arithmetic, evaluate_accuracy, train
from .weights import load_weights, save_weights

Rate = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


class Recipe(BaseModel):
    """How the dense network is trained, and how a pruned one is retrained, fast in a search and fully at its end."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    pretrain_epochs: Positive = 20
    """Epochs of the dense network's training."""

    fast_epochs: Positive = 2
    """Epochs of the retraining that gives a search its accuracy."""

    full_epochs: Positive = 15
    """Epochs of the retraining that a final mapping gets."""

    batch: Positive = 64
    """Images per step."""

    lr: Rate = 0.1
    """Peak learning rate of the dense network's training."""

    fast_lr: Rate = 0.1
    """Peak learning rate of fast retraining."""

    full_lr: Rate = 0.1
    """Peak learning rate of full retraining."""

    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    """Momentum of SGD."""

    weight_decay: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 5e-4
    """L2 penalty of all parameters."""

    schedule: Literal["one-cycle", "cosine", "constant"] = "cosine"
    """Course of the learning rate: rising for a quarter of the steps then falling, only falling, or neither."""

    device: Literal["cpu", "cuda"] = "cpu"
    """Where networks are trained."""

    @property
    def pretraining(self) -> Phase:
        """The dense network's training."""
        return self._phase(self.pretrain_epochs, self.lr)

    @property
    def fast(self) -> Phase:
        """Retraining inside a search."""
        return self._phase(self.fast_epochs, self.fast_lr)

    @property
    def full(self) -> Phase:
        """Retraining of a final mapping."""
        return self._phase(self.full_epochs, self.full_lr)

    def _phase(self, epochs: int, lr: float) -> Phase:
        shared = self.model_dump(include={"batch", "momentum", "weight_decay", "schedule", "device"})
        return Phase(epochs=epochs, lr=lr, **shared)


@dataclass(frozen=True)
class Retrained:
    """A retrained copy of a network.

    Attributes:
        model: On the CPU, in evaluation mode; masked entries are exactly zero.
        validation: Fraction of the validation images classified right.
        epochs: Training epochs spent.
        seconds: Wall time spent.
    """

    model: nn.Module
    validation: float
    epochs: int
    seconds: float


def train_dense(
    network: str,
    options: Mapping[str, Any],
    data: Dataset,
    recipe: Recipe,
    seed: int,
    progress: Callable[[int], None] | None = None,
) -> nn.Module:
    """The dense network, trained; from the cache folder when the same training was done before.

    The key covers whatever the weights depend on: the freshly initialised network, the images, the training phase,
    the seed, torch and the processor. Nothing but tensors is stored (safetensors).

    Args:
        network: As for ``build_network``.
        options: The network's options.
        data: Trained on its training split.
        recipe: Only what concerns pretraining has a part in the key.
        seed: Seed of the initial weights and of training.
        progress: Called with the number of epochs done, after each; not called when the weights are in the cache.

    Returns:
        The network on the CPU, in evaluation mode.

    Raises:
        PrunemapError: For an unknown network or option, and when the cached file is damaged.
        Diverged: When training ends with outputs that are not finite; nothing is stored then.
    """
    model = build_network(network, seed=seed, **options)
    phase = recipe.pretraining
    path = cache_folder() / "dense" / f"{_dense_key(network, model, data, phase, seed)}.safetensors"
    if path.is_file():
        load_weights(model, path)
        return model.eval()
    train(model, data.train, phase, seed, progress=progress)
    evaluate_accuracy(model, data.validation)
    save_weights(model, path)
    return model.cpu().eval()


def retrain(model: nn.Module, masks: Masks, data: Dataset, phase: Phase, seed: int) -> Retrained:
    """Retrain a copy of ``model`` with masked parameters held at zero, and take its validation accuracy.

    Args:
        model: Where training starts; unchanged.
        masks: What is held at zero; empty for a dense network.
        data: Trained on its training split.
        phase: How long and how.
        seed: Seed of the order of the images. The same arguments give the same bits in every process on one kind of
            processor.

    Raises:
        Diverged: When training ends with outputs that are not finite.
    """
    start = time.perf_counter()
    copied = copy.deepcopy(model)
    train(copied, data.train, phase, seed, masks=masks)
    validation = evaluate_accuracy(copied, data.validation)
    return Retrained(copied.cpu(), validation, phase.epochs, time.perf_counter() - start)


def fast_retrain(model: nn.Module, masks: Masks, data: Dataset, recipe: Recipe, seed: int) -> float:
    """Validation accuracy after the recipe's fast retraining; see ``retrain``."""
    return retrain(model, masks, data, recipe.fast, seed).validation


def full_retrain(model: nn.Module, masks: Masks, data: Dataset, recipe: Recipe, seed: int) -> Retrained:
    """The network after the recipe's full retraining; see ``retrain``."""
    return retrain(model, masks, data, recipe.full, seed)


def _dense_key(network: str, model: nn.Module, data: Dataset, phase: Phase, seed: int) -> str:
    facts = {
        "network": network,
        "structure": str(model),
        # The graph too: the forward of a user's own network may change while its modules do not.
        "graph": [asdict(node) for node in capture(model, data.train.images[:1]).nodes],
        "data": data.digest,
        "phase": asdict(phase),
        "seed": seed,
        "arithmetic": arithmetic(phase.device),
    }
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, value in model.state_dict().items():
        key.update(name.encode())
        key.update(value.numpy().tobytes())
    return key.hexdigest()
