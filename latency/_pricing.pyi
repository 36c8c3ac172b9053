import enum
from collections.abc import Callable, Iterable, Sequence, Set

import numpy as np
import numpy.typing as npt

from ..pruning.mapping import Choice

class Curve:
    def __init__(self, cells: npt.NDArray[np.float64]) -> None: ...
    def at(self, share: float) -> tuple[float, float, float]: ...

class Surface:
    def __init__(self, inputs: Sequence[float], outputs: Sequence[float], values: npt.NDArray[np.float64]) -> None: ...
    def at(self, inputs: float, outputs: float) -> float: ...

class Effect:
    def __init__(self, written: float = 1.0, unread: float = 0.0, rows: int = 0) -> None: ...
    @property
    def written(self) -> float: ...
    @property
    def unread(self) -> float: ...
    @property
    def rows(self) -> int: ...

class Option:
    @property
    def alone(self) -> tuple[float, float, float]: ...

def computed_share(stored: float, filters: int, together: int, rows: int) -> float: ...

class Layer:
    def dense(self) -> Option: ...
    def option(
        self,
        scheme: str,
        rate: float,
        effect: Effect,
        density: float,
        together: int,
        whole: bool,
        curve: Curve | None,
        unmeasured: str,
    ) -> Option: ...

class ChannelLayer(Layer):
    def __init__(
        self,
        whole: tuple[float, float, float],
        filters: int,
        least: float,
        follows: bool,
        surface: Surface,
        staged: Surface | None,
    ) -> None: ...

class WeightLayer(Layer):
    def __init__(self, whole: tuple[float, float, float], dense: Curve) -> None: ...

class Kind(enum.Enum):
    layer = 0
    depthwise = 1
    addition = 2
    opaque = 3

class Graph:
    def __init__(
        self,
        filters: Sequence[int],
        groups: int,
        output: int,
        operations: Sequence[tuple[int, int, int, Kind, int]],
        whole: Sequence[int],
        ties: Sequence[tuple[Sequence[int], int]],
    ) -> None: ...
    @property
    def sources(self) -> list[int]: ...
    def shares(
        self, effects: Sequence[Effect], alike: Set[int]
    ) -> tuple[list[float], list[float], list[float], list[float], list[float]]: ...

class Left:
    def __init__(self, kept: float, inputs: float, stored: float, planes: float, alive: bool) -> None: ...
    @property
    def kept(self) -> float: ...
    @property
    def inputs(self) -> float: ...
    @property
    def stored(self) -> float: ...
    @property
    def planes(self) -> float: ...
    @property
    def alive(self) -> bool: ...

class Predictor:
    def __init__(
        self,
        names: Sequence[str],
        layers: Sequence[Layer],
        graph: Graph,
        writes: Sequence[int],
        removable: Sequence[tuple[int, int, Sequence[int]]],
        sharers: Sequence[Sequence[tuple[int, Curve]]],
    ) -> None: ...
    def total(
        self,
        items: Iterable[tuple[str, Choice]],
        prepare: Callable[[str, Choice], Option],
        left: Sequence[Left] = (),
    ) -> tuple[float, float, float, float]: ...
    def layers_ms(
        self,
        items: Iterable[tuple[str, Choice]],
        prepare: Callable[[str, Choice], Option],
        left: Sequence[Left] = (),
    ) -> list[float]: ...
