"""VGG-16 with torchvision's names (``features.N``, ``classifier.N``)."""

from __future__ import annotations

import torch
from torch import nn

from ..options import Positive
from . import NETWORKS, NetworkEntry
from .blocks import initialise

# Convolutions per stage and their width as a multiple of the first stage's; a 2x2 max pool ends each stage.
_STAGES = ((2, 1), (2, 2), (3, 4), (3, 8), (3, 8))


def _features(in_channels: int, width: int, batch_norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = in_channels
    for depth, multiple in _STAGES:
        for _ in range(depth):
            out = width * multiple
            layers.append(nn.Conv2d(channels, out, 3, padding=1))
            if batch_norm:
                layers.append(nn.BatchNorm2d(out))
            layers.append(nn.ReLU(inplace=True))
            channels = out
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


class VGG16(nn.Module):
    """Thirteen 3x3 convolutions and a classifier.

    torchvision's adaptive pool between them does nothing on the 224x224 (``small``: 32x32) images that this network is
    for, and is left out.
    """

    def __init__(self, features: nn.Sequential, classifier: nn.Sequential) -> None:
        super().__init__()
        self.features = features
        self.classifier = classifier
        initialise(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (N, classes) of images (N, C, 224, 224), or (N, C, 32, 32) for the small one."""
        logits: torch.Tensor = self.classifier(torch.flatten(self.features(x), 1))
        return logits


def vgg16(
    num_classes: Positive = 1000,
    in_channels: Positive = 3,
    width: Positive = 64,
    small: bool = False,
    batch_norm: bool = False,
) -> nn.Module:
    """VGG-16; ``small`` is the CIFAR form, whose classifier is one linear layer."""
    channels = 8 * width
    if small:
        classifier = nn.Sequential(nn.Linear(channels, num_classes))
    else:
        hidden = 64 * width
        head = [nn.Linear(channels * 7 * 7, hidden), nn.ReLU(inplace=True), nn.Dropout()]
        body = [nn.Linear(hidden, hidden), nn.ReLU(inplace=True), nn.Dropout()]
        classifier = nn.Sequential(*head, *body, nn.Linear(hidden, num_classes))
    return VGG16(_features(in_channels, width, batch_norm), classifier)


NETWORKS.register("vgg16")(NetworkEntry(vgg16, (3, 224, 224), "VGG-16", small_shape=(3, 32, 32)))
