"""MobileNetV2 with torchvision's names: inverted residuals with linear bottlenecks."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from ..options import Positive
from . import NETWORKS, NetworkEntry
from .blocks import initialise, scaled

# (expansion, output channels, blocks, stride of the first block) of each stage.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def _unit(channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out), nn.ReLU6(inplace=True))


class InvertedResidual(nn.Module):
    """1x1 expansion (absent at expansion 1), depthwise 3x3, linear 1x1 projection; a shortcut where shapes agree."""

    def __init__(self, channels: int, out: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = channels * expansion
        layers: list[nn.Module] = [] if expansion == 1 else [_unit(channels, hidden, 1)]
        layers.append(_unit(hidden, hidden, 3, stride, groups=hidden))
        layers += [nn.Conv2d(hidden, out, 1, bias=False), nn.BatchNorm2d(out)]
        self.conv = nn.Sequential(*layers)
        self.shortcut = stride == 1 and channels == out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, channels, H, W) -> (N, out, H / stride, W / stride)."""
        out: torch.Tensor = self.conv(x)
        return x + out if self.shortcut else out


class MobileNetV2(nn.Module):
    """Stem, 17 inverted residuals, a 1x1 convolution, global average pool, dropout and linear."""

    def __init__(self, num_classes: int, in_channels: int, width: float, small: bool) -> None:
        super().__init__()
        channels = scaled(32, width)
        features: list[nn.Module] = [_unit(in_channels, channels, 3, 1 if small else 2)]
        for index, (expansion, base, depth, first_stride) in enumerate(_STAGES):
            out = scaled(base, width)
            for position in range(depth):
                halves = position == 0 and first_stride == 2 and not (small and index == 1)
                features.append(InvertedResidual(channels, out, 2 if halves else 1, expansion))
                channels = out
        last = scaled(1280, max(1.0, width))
        features.append(_unit(channels, last, 1))
        self.features = nn.Sequential(*features)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, num_classes))
        initialise(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (N, classes) of images (N, C, H, W)."""
        x = self.avgpool(self.features(x))
        logits: torch.Tensor = self.classifier(torch.flatten(x, 1))
        return logits


def mobilenetv2(
    num_classes: Positive = 1000,
    in_channels: Positive = 3,
    width: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0,
    small: bool = False,
) -> nn.Module:
    """MobileNetV2; ``small`` is the CIFAR form: the stem and the second stage keep the map's size."""
    return MobileNetV2(num_classes, in_channels, width, small)


NETWORKS.register("mobilenetv2")(NetworkEntry(mobilenetv2, (3, 224, 224), "MobileNetV2", small_shape=(3, 32, 32)))
