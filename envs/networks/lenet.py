"""LeNet-5 as Caffe defines it: 20-50-500, 430.5 K weights (the network of ADMM-NN-S)."""

from __future__ import annotations

import torch
from torch import nn

from ..options import Positive
from . import NETWORKS, NetworkEntry


class LeNet5(nn.Module):
    """Two 5x5 convolutions, each followed by a 2x2 max pool, and two linear layers, on 28x28 images.

    As in Caffe's definition there is no activation after the convolutions.
    """

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 20, 5)
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.pool2 = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(50 * 4 * 4, 500)
        self.relu = nn.ReLU(inplace=True)
        self.fc2 = nn.Linear(500, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (N, classes) of images (N, C, 28, 28)."""
        x = self.pool1(self.conv1(x))
        x = self.pool2(self.conv2(x))
        x = self.relu(self.fc1(torch.flatten(x, 1)))
        logits: torch.Tensor = self.fc2(x)
        return logits


def lenet5(num_classes: Positive = 10, in_channels: Positive = 1) -> nn.Module:
    """LeNet-5."""
    return LeNet5(num_classes, in_channels)


NETWORKS.register("lenet5")(NetworkEntry(lenet5, (1, 28, 28), "Caffe's LeNet-5 (20-50-500) for 28x28 images"))
