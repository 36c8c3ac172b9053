"""MobileNetV1: depthwise separable convolutions in a chain."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from ..options import Positive
from . import NETWORKS, NetworkEntry
from .blocks import initialise, scaled

# (output channels, stride) of each depthwise separable block.
_BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))


def _unit(channels: int, out: int, kernel: int, stride: int, groups: int) -> list[nn.Module]:
    conv = nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(out), nn.ReLU(inplace=True)]


class MobileNetV1(nn.Module):
    """A 3x3 stem (``features.0``), 13 blocks of a depthwise 3x3 and a 1x1 convolution, global average pool, linear."""

    def __init__(self, num_classes: int, in_channels: int, width: float, stem_stride: int) -> None:
        super().__init__()
        channels = scaled(32, width)
        blocks = [nn.Sequential(*_unit(in_channels, channels, 3, stem_stride, 1))]
        for base, stride in _BLOCKS:
            out = scaled(base, width)
            depthwise = _unit(channels, channels, 3, stride, channels)
            blocks.append(nn.Sequential(*depthwise, *_unit(channels, out, 1, 1, 1)))
            channels = out
        self.features = nn.Sequential(*blocks)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)
        initialise(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (N, classes) of images (N, C, H, W)."""
        x = self.avgpool(self.features(x))
        logits: torch.Tensor = self.classifier(torch.flatten(x, 1))
        return logits


def mobilenetv1(
    num_classes: Positive = 1000,
    in_channels: Positive = 3,
    width: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0,
    small: bool = False,
) -> nn.Module:
    """MobileNetV1; ``small`` is the CIFAR form, whose stem keeps the map's size."""
    return MobileNetV1(num_classes, in_channels, width, stem_stride=1 if small else 2)


NETWORKS.register("mobilenetv1")(NetworkEntry(mobilenetv1, (3, 224, 224), "MobileNetV1", small_shape=(3, 32, 32)))
