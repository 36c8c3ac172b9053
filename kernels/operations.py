"""Fused operations on compact values: what lowering makes and the planner computes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Clamp = tuple[float, float]

NO_CLAMP: Clamp = (-math.inf, math.inf)
CLAMPS: dict[str, Clamp] = {"relu": (0.0, math.inf), "relu6": (0.0, 6.0)}


@dataclass(frozen=True)
class Value:
    """What one operation produces: the live channels only.

    Attributes:
        shape: (channels, height, width).
        channels: For every original channel its place in the value, or -1.
    """

    shape: tuple[int, int, int]
    channels: Ints


@dataclass(frozen=True)
class Convolution:
    """A convolution on compact values.

    Attributes:
        weight: (filters, inputs per group, kernel height, kernel width); zeros are what pruning left.
        bias: (filters,).
        groups: (filters,): the group of each filter, a row of ``inputs``.
        inputs: (groups, inputs per group): channel of the input value, or -1 for one that is not there.
        stride: Vertical and horizontal.
        padding: Rows above and below, columns left and right.
        dilation: Vertical and horizontal.
    """

    weight: Floats
    bias: Floats
    groups: Ints
    inputs: Ints
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]


@dataclass(frozen=True)
class Pooling:
    """A maximum or average over windows: (height, width) pairs."""

    maximum: bool
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    count_padding: bool


@dataclass(frozen=True)
class Operation:
    """One fused operation.

    Attributes:
        name: Of its result among the values.
        kind: ``convolution``, ``pool``, ``add`` (of one or two values, then the clamp) or ``function``.
        layer: Qualified name of the layer whose weights it applies, or None.
        inputs: Values it reads, without the residual.
        residual: Value that is added before the clamp, or None.
        clamp: Bounds of the result.
        convolution: For ``convolution``.
        pooling: For ``pool``.
        function: For ``function``: the activation's name.
    """

    name: str
    kind: str
    layer: str | None
    inputs: tuple[str, ...]
    residual: str | None = None
    clamp: Clamp = NO_CLAMP
    convolution: Convolution | None = None
    pooling: Pooling | None = None
    function: str = ""

    @property
    def reads(self) -> tuple[str, ...]:
        """All values it reads."""
        return self.inputs if self.residual is None else (*self.inputs, self.residual)


@dataclass(frozen=True)
class Lowered:
    """Operations in execution order, the values between them, and the names of the first and the last value."""

    operations: tuple[Operation, ...]
    values: dict[str, Value]
    source: str
    result: str
