"""Training with weights held at zero: one thread, its own seeds, the same bits in every process."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from ..pruning import Masks, PrunemapError, apply_masks
from .datasets import Split
from .randomness import seeded

_WARM_UP = 0.25
_CALIBRATION_IMAGES = 2048
_CALIBRATION_BATCH = 256

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "cosine": lambda progress: 0.5 * (1.0 + math.cos(math.pi * progress)),
    "one-cycle": lambda progress: (
        progress / _WARM_UP
        if progress < _WARM_UP
        else 0.5 * (1.0 + math.cos(math.pi * (progress - _WARM_UP) / (1.0 - _WARM_UP)))
    ),
}
"""Learning rate as a fraction of its peak, by the fraction of all steps done, in (0, 1)."""


class Diverged(PrunemapError):
    """Training ended with outputs that are not finite."""


@dataclass(frozen=True)
class Phase:
    """How long and how a network is trained, by SGD with momentum on the cross-entropy.

    Attributes:
        epochs: Passes over the training images.
        lr: Peak learning rate.
        batch: Images of a step; the last steps of an epoch may have one less.
        momentum: Momentum of SGD.
        weight_decay: L2 penalty of all parameters.
        schedule: A name of ``SCHEDULES``.
        device: ``cpu`` or ``cuda``.
    """

    epochs: int
    lr: float
    batch: int
    momentum: float
    weight_decay: float
    schedule: str
    device: str


def train(
    model: nn.Module,
    split: Split,
    phase: Phase,
    seed: int,
    *,
    masks: Masks | None = None,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Train ``model`` in place, on ``phase.device``.

    The statistics of batch norms are taken anew at the end: in the few steps of a fast retraining the running ones lag
    behind the weights so far that they, and not the mapping, would decide the accuracy. Global random states and the
    number of threads are left as they were found.

    Args:
        model: Left in evaluation mode.
        split: Images to train on.
        phase: How.
        seed: Seed of the order of the images, and of dropout.
        masks: What is set to zero first and stays exactly zero.
        progress: Called with the number of epochs done, after each.

    Raises:
        PrunemapError: When a mask fits no parameter.
    """
    apply_masks(model, masks or {})
    model.to(phase.device).train()
    data = split.to(phase.device)
    parameters = dict(model.named_parameters())
    dead = [(parameters[name], ~mask.to(phase.device)) for name, mask in (masks or {}).items()]
    optimiser = torch.optim.SGD(
        model.parameters(), lr=phase.lr, momentum=phase.momentum, weight_decay=phase.weight_decay, fused=True
    )
    shuffle = torch.Generator().manual_seed(seed)
    steps = math.ceil(len(data) / phase.batch)
    with reproducible(phase.device, seed):
        for epoch in range(phase.epochs):
            batches = torch.randperm(len(data), generator=shuffle).to(phase.device).tensor_split(steps)
            for step, index in enumerate(batches, start=epoch * steps):
                rate = SCHEDULES[phase.schedule]((step + 0.5) / (phase.epochs * steps))
                optimiser.param_groups[0]["lr"] = phase.lr * rate
                optimiser.zero_grad()
                loss = functional.cross_entropy(model(data.images[index]), data.labels[index])
                torch.autograd.backward(loss)
                _clear_gradients(dead)
                optimiser.step()
            if progress:
                progress(epoch + 1)
        _recalibrate(model, data)


def evaluate_accuracy(model: nn.Module, split: Split, batch: int = 200) -> float:
    """Fraction of the images classified right, on the device that ``model`` is on; it is left in evaluation mode.

    Raises:
        Diverged: When an output is not finite.
    """
    device = next(model.parameters()).device.type
    model.eval()
    right = 0
    with reproducible(device, seed=0), torch.inference_mode():
        for start in range(0, len(split), batch):
            logits = model(split.images[start : start + batch].to(device))
            if not torch.isfinite(logits).all():
                raise Diverged("the network's outputs are not finite after training; lower the recipe's learning rates")
            right += int((logits.argmax(1).cpu() == split.labels[start : start + batch]).sum())
    return right / len(split)


@contextmanager
def reproducible(device: str, seed: int) -> Iterator[None]:
    """One thread, deterministic convolutions, global generators at ``seed``; all as before afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with seeded(seed, device), torch.backends.cudnn.flags(benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_num_threads(threads)


def arithmetic(device: str) -> str:
    """What the bits of a training result depend on besides its inputs: torch and what the processor can do.

    Raises:
        PrunemapError: When there is no such device.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise PrunemapError("recipe.device: torch sees no CUDA device on this machine; use cpu")
    processor = torch.cuda.get_device_name(device) if device == "cuda" else torch.backends.cpu.get_cpu_capability()
    return f"torch {torch.__version__}, {processor}"


def _clear_gradients(dead: list[tuple[nn.Parameter, torch.Tensor]]) -> None:
    """No gradient on entries that are zero: then neither momentum nor weight decay can move them."""
    for parameter, entries in dead:
        if parameter.grad is not None:
            parameter.grad.masked_fill_(entries, 0.0)


def _recalibrate(model: nn.Module, data: Split) -> None:
    """Set the running statistics of batch norms to their mean over batches of (the first) training images."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    model.eval()
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    images = data.images[:_CALIBRATION_IMAGES]
    with torch.no_grad():
        for batch in images.tensor_split(math.ceil(len(images) / _CALIBRATION_BATCH)):
            model(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()
