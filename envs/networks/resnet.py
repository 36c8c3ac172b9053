"""Residual networks: CIFAR style (resnet8, 20, 56) and ImageNet style (resnet18, 50), with torchvision's names.

All shortcuts that change shape are projections (1x1 convolution and batch norm), also in the CIFAR networks, where the
first paper pads with zeros: so the channels of a stage form one group whose members are all layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn

from ..options import Positive
from . import NETWORKS, NetworkEntry
from .blocks import initialise


class _Residual(nn.Module):
    """A residual block: the subclass's branch, a shortcut (projected where the shape changes), and a ReLU."""

    expansion: int

    def __init__(self, channels: int, planes: int, stride: int) -> None:
        super().__init__()
        out = planes * self.expansion
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def branch(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.relu(self.branch(x) + self.downsample(x))
        return out


class BasicBlock(_Residual):
    """Two 3x3 convolutions."""

    expansion = 1

    def __init__(self, channels: int, planes: int, stride: int) -> None:
        super().__init__(channels, planes, stride)
        self.conv1 = nn.Conv2d(channels, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)

    def branch(self, x: torch.Tensor) -> torch.Tensor:
        """The residual function."""
        x = self.relu(self.bn1(self.conv1(x)))
        out: torch.Tensor = self.bn2(self.conv2(x))
        return out


class Bottleneck(_Residual):
    """1x1, 3x3 and 1x1 convolutions; the 3x3 one carries the stride (torchvision's v1.5)."""

    expansion = 4

    def __init__(self, channels: int, planes: int, stride: int) -> None:
        super().__init__(channels, planes, stride)
        out = planes * self.expansion
        self.conv1 = nn.Conv2d(channels, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)

    def branch(self, x: torch.Tensor) -> torch.Tensor:
        """The residual function."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        out: torch.Tensor = self.bn3(self.conv3(x))
        return out


class ResNet(nn.Module):
    """Stem, stages ``layer1``, ``layer2``, ... of doubling width and halving map, global average pool, ``fc``.

    Args:
        block: BasicBlock or Bottleneck.
        depths: Blocks per stage.
        width: Channels of the stem and (before expansion) of the first stage.
        large: Whether the stem is 7x7 with stride 2 and a max pool (ImageNet), or 3x3 with stride 1 (CIFAR).
        num_classes: Number of logits.
        in_channels: Channels of the images.
    """

    def __init__(
        self,
        block: type[BasicBlock | Bottleneck],
        depths: Sequence[int],
        *,
        width: int,
        large: bool,
        num_classes: int,
        in_channels: int,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, *((7, 2, 3) if large else (3, 1, 1)), bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if large else nn.Identity()
        self.stages = [f"layer{index + 1}" for index in range(len(depths))]
        channels = width
        for index, (name, depth) in enumerate(zip(self.stages, depths, strict=True)):
            planes, blocks = width * 2**index, []
            for position in range(depth):
                blocks.append(block(channels, planes, 2 if index > 0 and position == 0 else 1))
                channels = planes * block.expansion
            self.add_module(name, nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)
        initialise(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (N, classes) of images (N, C, H, W)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for name in self.stages:
            x = self.get_submodule(name)(x)
        logits: torch.Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return logits


def _cifar(depth: int) -> Callable[..., nn.Module]:
    def build(num_classes: Positive = 10, in_channels: Positive = 3, width: Positive = 16) -> nn.Module:
        options = {"num_classes": num_classes, "in_channels": in_channels, "width": width}
        return ResNet(BasicBlock, [depth] * 3, large=False, **options)

    return build


def _imagenet(block: type[BasicBlock | Bottleneck], depths: Sequence[int]) -> Callable[..., nn.Module]:
    def build(
        num_classes: Positive = 1000, in_channels: Positive = 3, width: Positive = 64, small: bool = False
    ) -> nn.Module:
        options = {"num_classes": num_classes, "in_channels": in_channels, "width": width}
        return ResNet(block, depths, large=not small, **options)

    return build


_SMALL, _LARGE = (3, 32, 32), (3, 224, 224)
_small = partial(NetworkEntry, input_shape=_SMALL)
_large = partial(NetworkEntry, input_shape=_LARGE, small_shape=_SMALL)

NETWORKS.register("resnet8")(_small(_cifar(1), description="CIFAR-style ResNet, 1 block per stage"))
NETWORKS.register("resnet20")(_small(_cifar(3), description="CIFAR-style ResNet, 3 blocks per stage"))
NETWORKS.register("resnet56")(_small(_cifar(9), description="CIFAR-style ResNet, 9 blocks per stage"))
NETWORKS.register("resnet18")(_large(_imagenet(BasicBlock, [2, 2, 2, 2]), description="ResNet-18"))
NETWORKS.register("resnet50")(_large(_imagenet(Bottleneck, [3, 4, 6, 3]), description="ResNet-50 (v1.5)"))
