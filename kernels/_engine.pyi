import enum
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

MAX_JAMMED: int
MAX_ROW_STEP: int
CELL_ROWS: int
MAX_WINOGRAD_STEP: int
MAX_ROWS: int
MAX_EVEN_COLUMNS: int

class Space(enum.Enum):
    arena = 0
    input = 1
    output = 2

class Planes:
    def __init__(
        self, space: Space, base: int, stride: int, before: int, pitch: int, shape: tuple[int, int, int]
    ) -> None: ...

class Filters:
    def __init__(
        self,
        runs: npt.NDArray[np.int64],
        offsets: npt.NDArray[np.int32],
        weights: npt.NDArray[np.float32],
        bias: npt.NDArray[np.float32],
        rows: npt.NDArray[np.int32],
        clamp: tuple[float, float],
        sets: npt.NDArray[np.int32] = ...,
    ) -> None: ...

class Tile:
    def __init__(
        self, lanes: int, vectors: int, rows: int, columns: int, joined: int, rest: int, passes: int, runs_outer: bool
    ) -> None: ...

class Filtering:
    def __init__(
        self,
        cell: int,
        rows: Sequence[tuple[Sequence[int], npt.NDArray[np.float32]]],
        columns: Sequence[tuple[Sequence[int], npt.NDArray[np.float32]]],
        components: tuple[int, int],
        step: tuple[int, int],
        padding: tuple[int, int],
        channels: Sequence[int],
        holes: npt.NDArray[np.int32],
        band: int,
        chunk: int,
        stride: int,
        bias: npt.NDArray[np.float32],
        clamp: tuple[float, float],
    ) -> None: ...

class Program:
    def __init__(self, isa: str, threads: int, arena: int, input: int, output: int, scratch: int = 0) -> None: ...
    def pixel_conv(
        self, filters: Filters, tile: Tile, source: Planes, target: Planes, residual: Planes | None, clear: bool
    ) -> None: ...
    def panel_conv(
        self,
        filters: Filters,
        panel: npt.NDArray[np.int32],
        tile: Tile,
        source: Planes,
        target: Planes,
        residual: Planes | None,
        clear: bool,
    ) -> None: ...
    def channel_conv(
        self,
        filters: Filters,
        tile: Tile,
        source: Planes,
        target: Planes,
        residual: Planes | None,
        step: tuple[int, int],
        clear: bool,
    ) -> None: ...
    def rows_conv(
        self,
        filters: Filters,
        columns: npt.NDArray[np.int32],
        tile: Tile,
        source: Planes,
        target: Planes,
        residual: Planes | None,
        step: tuple[int, int],
        clear: bool,
    ) -> None: ...
    def winograd_conv(
        self,
        products: Filters,
        filtering: Filtering,
        tile: Tile,
        source: Planes,
        target: Planes,
        residual: Planes | None,
        clear: bool,
    ) -> None: ...
    def stage(
        self, source: Planes, target: Planes, phases: Sequence[tuple[int, int]], step: tuple[int, int], clear: bool
    ) -> None: ...
    def pool(
        self, source: Planes, target: Planes, maximum: bool, window: Sequence[int], count_padding: bool, clear: bool
    ) -> None: ...
    def add(
        self, source: Planes, other: Planes | None, target: Planes, clamp: tuple[float, float], clear: bool
    ) -> None: ...
    def function(self, name: str, source: Planes, target: Planes, clear: bool) -> None: ...
    def run(self, input: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]: ...
    def time(self, input: npt.NDArray[np.float32], repeats: int) -> npt.NDArray[np.float64]: ...
    def time_steps(
        self, input: npt.NDArray[np.float32], repeats: int, chosen: Sequence[int]
    ) -> npt.NDArray[np.float64]: ...
    @property
    def steps(self) -> int: ...

class RoofLoop:
    def __init__(self, isa: str, loop: str, lanes: int, floats: int, passes: int, threads: int) -> None: ...
    def time(self, repeats: int) -> npt.NDArray[np.float64]: ...
    @property
    def flops(self) -> float: ...
    @property
    def bytes(self) -> float: ...
    @property
    def size(self) -> int: ...

def built_isas() -> list[str]: ...
def supported_isas() -> list[str]: ...
def function_names() -> list[str]: ...
def has_columns(columns: int, step: int) -> bool: ...
def families(isa: str) -> list[tuple[int, dict[int, int], dict[int, int], dict[int, int]]]: ...
def gather_weights(
    weights: npt.NDArray[np.float32], listed: npt.NDArray[np.bool_], filters: npt.NDArray[np.int64], width: int
) -> npt.NDArray[np.float32]: ...
def jam_weights(
    weights: npt.NDArray[np.float32],
    mask: npt.NDArray[np.bool_],
    filters: npt.NDArray[np.int64],
    offsets: npt.NDArray[np.int32],
    groups: npt.NDArray[np.int64],
    block: int,
) -> tuple[
    npt.NDArray[np.int64],
    npt.NDArray[np.int64],
    npt.NDArray[np.int32],
    npt.NDArray[np.float32],
    npt.NDArray[np.int32],
]: ...
