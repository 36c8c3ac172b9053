"""What capture understands: which modules, and which functions and methods in terms of those modules.

A function is turned into the module that computes the same, so that every operation is read in one place.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .errors import PrunemapError
from .network import Attr

Attrs = dict[str, Attr]
Reading = tuple[str, Attrs]

IDENTITY = "identity"
"""Modules that do nothing at inference; they leave no node."""


def two(value: int | tuple[int | None, ...] | None) -> tuple[int, int]:
    """A size that may be given once for height and width; None, a size that is not known, is 0."""
    numbers = (value,) if isinstance(value, int) or value is None else tuple(value)
    first, last = numbers[0] or 0, numbers[-1] or 0
    return int(first), int(last)


def _activation(function: str) -> Callable[[nn.Module], Reading]:
    return lambda module: ("activation", {"function": function})


def _hardtanh(module: nn.Module) -> Reading:
    assert isinstance(module, nn.Hardtanh)
    if (module.min_val, module.max_val) != (0, 6):
        raise PrunemapError(f"Hardtanh({module.min_val}, {module.max_val}): only Hardtanh(0, 6), which is ReLU6")
    return "activation", {"function": "relu6"}


def _batchnorm(module: nn.Module) -> Reading:
    assert isinstance(module, nn.BatchNorm2d)
    if module.running_mean is None:
        raise PrunemapError("BatchNorm2d without running statistics cannot be folded; set track_running_stats=True")
    if not module.affine:
        raise PrunemapError("BatchNorm2d without scale and shift cannot silence a removed filter; set affine=True")
    return "batchnorm", {"eps": module.eps}


def _conv(module: nn.Module) -> Reading:
    assert isinstance(module, nn.Conv2d)
    if module.padding_mode != "zeros":
        raise PrunemapError(f"padding_mode={module.padding_mode!r}; only zeros")
    conv_padding(module)
    return "conv", {}


def conv_padding(module: nn.Conv2d) -> tuple[int, int]:
    """Rows above and below, columns left and right, that a convolution pads.

    Raises:
        PrunemapError: For ``padding="same"`` where the two sides would differ.
    """
    if not isinstance(module.padding, str):
        return two(module.padding)
    if module.padding == "valid":
        return 0, 0
    total = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
    if any(number % 2 for number in total):
        raise PrunemapError("padding='same' pads the two sides differently; use an odd kernel or explicit padding")
    return total[0] // 2, total[1] // 2


def _max_pool(module: nn.Module) -> Reading:
    assert isinstance(module, nn.MaxPool2d)
    if two(module.dilation) != (1, 1) or module.return_indices:
        raise PrunemapError("MaxPool2d with dilation or return_indices; only plain max pooling")
    return "maxpool", {
        "kernel": two(module.kernel_size),
        "stride": two(module.stride),
        "padding": two(module.padding),
        "ceil_mode": int(module.ceil_mode),
    }


def _avg_pool(module: nn.Module) -> Reading:
    assert isinstance(module, nn.AvgPool2d)
    if module.ceil_mode or module.divisor_override is not None:
        raise PrunemapError("AvgPool2d with ceil_mode or divisor_override; only plain average pooling")
    return "avgpool", {
        "kernel": two(module.kernel_size),
        "stride": two(module.stride),
        "padding": two(module.padding),
        "count_include_pad": int(module.count_include_pad),
    }


def _global_pool(module: nn.Module) -> Reading:
    assert isinstance(module, nn.AdaptiveAvgPool2d)
    if two(module.output_size) != (1, 1):
        raise PrunemapError(f"AdaptiveAvgPool2d({module.output_size}); only output size 1, the global average")
    return "globalavgpool", {}


def _flatten(module: nn.Module) -> Reading:
    assert isinstance(module, nn.Flatten)
    if (module.start_dim, module.end_dim) not in ((1, -1), (1, 3)):
        raise PrunemapError("Flatten that does not join all dimensions but the first; only start_dim=1, end_dim=-1")
    return "flatten", {}


MODULES: dict[type[nn.Module], Callable[[nn.Module], Reading]] = {
    nn.Conv2d: _conv,
    nn.Linear: lambda module: ("linear", {}),
    nn.BatchNorm2d: _batchnorm,
    nn.ReLU: _activation("relu"),
    nn.ReLU6: _activation("relu6"),
    nn.Hardtanh: _hardtanh,
    nn.Tanh: _activation("tanh"),
    nn.Sigmoid: _activation("sigmoid"),
    nn.Hardswish: _activation("hardswish"),
    nn.SiLU: _activation("silu"),
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _avg_pool,
    nn.AdaptiveAvgPool2d: _global_pool,
    nn.Flatten: _flatten,
    nn.Dropout: lambda module: (IDENTITY, {}),
    nn.Dropout2d: lambda module: (IDENTITY, {}),
    nn.Identity: lambda module: (IDENTITY, {}),
}
"""How each supported module is read: its operation and attributes."""

Modules = tuple[nn.Module, ...]


def _max_pool_call(
    kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool = False,
) -> Modules:  # fmt: skip
    return (nn.MaxPool2d(kernel_size, stride, padding, dilation, return_indices, ceil_mode),)


def _flatten_call(start_dim: int = 0, end_dim: int = -1) -> Modules:
    return (nn.Flatten(start_dim, end_dim),)


def _view_call(*sizes: Any) -> Modules:
    """x.view(batch, -1) and the like; that it joins all dimensions but the first is checked on the shapes."""
    shape = sizes[0] if len(sizes) == 1 else sizes
    if not isinstance(shape, tuple | list) or len(shape) != 2:
        raise PrunemapError(f"to shape {shape}; only x.view(x.size(0), -1), which flattens")
    return (nn.Flatten(1),)


def _mean_call(dim: Any = None, keepdim: bool = False) -> Modules:
    axes = sorted(axis % 4 for axis in dim) if isinstance(dim, tuple | list) else []
    if axes != [2, 3]:
        raise PrunemapError(f"over dimensions {dim}; only over height and width: x.mean([2, 3])")
    pool = nn.AdaptiveAvgPool2d(1)
    return (pool,) if keepdim else (pool, nn.Flatten(1))


def _nothing_call(*args: Any, **kwargs: Any) -> Modules:
    return (nn.Identity(),)


def _makes(module: Callable[..., nn.Module]) -> Callable[..., Modules]:
    return lambda *args, **kwargs: (module(*args, **kwargs),)


CALLS: dict[Callable[..., Any] | str, Callable[..., Modules]] = {
    F.relu: _makes(nn.ReLU),
    torch.relu: _makes(nn.ReLU),
    torch.relu_: lambda: (nn.ReLU(inplace=True),),
    "relu": _makes(nn.ReLU),
    "relu_": lambda: (nn.ReLU(inplace=True),),
    F.relu6: _makes(nn.ReLU6),
    F.hardtanh: _makes(nn.Hardtanh),
    torch.tanh: _makes(nn.Tanh),
    F.tanh: _makes(nn.Tanh),
    "tanh": _makes(nn.Tanh),
    torch.sigmoid: _makes(nn.Sigmoid),
    F.sigmoid: _makes(nn.Sigmoid),
    "sigmoid": _makes(nn.Sigmoid),
    F.hardswish: _makes(nn.Hardswish),
    F.silu: _makes(nn.SiLU),
    F.max_pool2d: _max_pool_call,
    F.avg_pool2d: _makes(nn.AvgPool2d),
    F.adaptive_avg_pool2d: _makes(nn.AdaptiveAvgPool2d),
    torch.flatten: _flatten_call,
    "flatten": _flatten_call,
    "view": _view_call,
    "reshape": _view_call,
    torch.reshape: _view_call,
    torch.mean: _mean_call,
    "mean": _mean_call,
    F.dropout: _nothing_call,
    "contiguous": _nothing_call,
}
"""Functions and methods: from their arguments after the input to the modules that compute the same."""

ADDITIONS: frozenset[Callable[..., Any] | str] = frozenset({operator.add, operator.iadd, torch.add, "add", "add_"})
IN_PLACE_ADDITIONS: frozenset[Callable[..., Any] | str] = frozenset({operator.iadd, "add_"})
SIZE_METHODS = frozenset({"size", "dim"})
"""Methods that give sizes; what is computed from sizes alone is not part of the network."""


def supported() -> str:
    """The names of all supported modules, for messages."""
    return ", ".join(sorted(module.__name__ for module in MODULES))
