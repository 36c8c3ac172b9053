"""Which values have margins between their rows, and the pitches that connected values have in common."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from .layout import Geometry, Layout, Phase, Staging, Taps, taps, walks_rows
from .operations import Convolution, Lowered, Operation

COPY = 6.0  # multiply-adds that cost as much as copying a vector through the second-level cache
MOST_READ = 100 * 1024  # floats of copies that a tile may read: beyond, that cache has no room for them beside weights
FAR = 0.3  # share of its multiply-adds by which a convolution takes longer then
TILE = 3  # vectors of pixels
STEP = 300  # vectors: copying them takes as long as starting a step
KEPT = 0.25  # share of the weights that are assumed to be left
REST, REST_PIXEL = 0.6, 0.1  # vectors of pixels that those beyond the last whole one, and each of them, cost as much as


def plan_layout(lowered: Lowered, lanes: int) -> Layout:
    """Choose the geometry of all values, for vectors of so many lanes.

    A convolution without stride walks input and output in step, so they need one pitch; so do the terms of an addition.
    Values that so depend on one another get margins between their rows, or none, and then the inputs of convolutions
    that reach beyond the edges are copied, once per column of the kernel: whichever costs less.

    That is decided for the network as it was before pruning, with a quarter of its weights: however it is pruned, its
    values lie in memory alike, so that layers measured under some mappings cost the same under others. What is read row
    by row needs no columns of margins, and its result may have another pitch.
    """
    return _Planner(lowered, lanes).plan()


@dataclass(frozen=True)
class _Reading:
    """What a convolution reads, and how.

    Attributes:
        operation: The convolution.
        source: Its input.
        staged: Name of the input rearranged, whether that is needed or not.
        outputs: (height, width) of the result.
        stride: (rows, columns).
        taps: Along rows and along columns.
        channels: Of the input, before pruning.
        kept: Weights that are assumed to be left.
        alone: Whether its input is read row by row, and walked with nothing in step.
    """

    operation: str
    source: str
    staged: str
    outputs: tuple[int, int]
    stride: tuple[int, int]
    taps: tuple[Taps, Taps]
    channels: int
    kept: float
    alone: bool

    @property
    def strided(self) -> bool:
        return self.stride != (1, 1)

    @property
    def walked(self) -> str:
        """What is walked in step with the output."""
        return self.staged if self.strided else self.source

    def steps(self) -> tuple[Taps, Taps]:
        """The taps within the planes of one phase."""
        rows, columns = ([(i, at // step) for i, at in t] for t, step in zip(self.taps, self.stride, strict=True))
        return rows, columns

    def phases(self, shifted: bool) -> tuple[Phase, ...]:
        """The phases that are read; one if none is."""
        columns = {x if shifted else x % self.stride[1] for _, x in self.taps[1]}
        found = {(y % self.stride[0], x) for _, y in self.taps[0] for x in columns}
        return tuple(sorted(found)) or ((0, 0),)


class _Planner:
    def __init__(self, lowered: Lowered, lanes: int) -> None:
        self._lowered = lowered
        self._lanes = lanes
        self._nodes: dict[str, Geometry] = {}  # values, and staged values under names of their own
        self._parent: dict[str, str] = {}
        self._staged: dict[str, Staging] = {}  # by convolution; the geometry is that of the node so far
        for name, value in lowered.values.items():
            self._start(name, value.shape)
        self._readings = [self._reading(o, o.convolution) for o in lowered.operations if o.convolution is not None]

    def plan(self) -> Layout:
        self._connect()
        tight = self._tight()
        for reading in self._readings:
            self._make_room(reading, tight)
        pitches: dict[str, int] = {}
        for name, geometry in self._nodes.items():
            root = self._root(name)
            pitches[root] = max(pitches.get(root, 0), geometry.pitch)
        done = {name: replace(g, pitch=pitches[self._root(name)]) for name, g in self._nodes.items()}
        staged = {name: replace(s, geometry=done[s.name]) for name, s in self._staged.items()}
        return Layout({name: done[name] for name in self._lowered.values}, staged)

    def _reading(self, operation: Operation, c: Convolution) -> _Reading:
        source, target = (self._lowered.values[name] for name in (operation.inputs[0], operation.name))
        outputs, channels = target.shape[1:], len(source.channels)
        staged = f"{operation.inputs[0]}/{c.stride[0]}x{c.stride[1]}"
        both = taps(c, 0, source.shape[1], outputs[0]), taps(c, 1, source.shape[2], outputs[1])
        weights = len(target.channels) * channels // len(c.inputs) * math.prod(c.weight.shape[2:])
        return _Reading(
            operation.name, operation.inputs[0], staged, outputs, c.stride, both, channels, KEPT * weights,
            walks_rows(c, outputs),
        )  # fmt: skip

    def _connect(self) -> None:
        """Unite what is walked in step."""
        for reading in self._readings:
            if reading.alone or reading.outputs == (1, 1):
                continue
            if reading.strided:
                self._start_staged(reading)
            self._unite(reading.walked, reading.operation)
        for operation in self._lowered.operations:
            if operation.kind == "add" or operation.residual is not None:
                for name in operation.reads if operation.kind == "add" else (str(operation.residual),):
                    self._unite(name, operation.name)

    def _start_staged(self, reading: _Reading) -> None:
        if reading.staged not in self._nodes:
            channels, *size = self._lowered.values[reading.source].shape
            height, width = (-(-s // step) for s, step in zip(size, reading.stride, strict=True))
            self._start(reading.staged, (channels, height, width))

    def _tight(self) -> set[str]:
        """Roots of those that do without margins between rows, copying inputs being cheaper."""
        walked = [r for r in self._readings if r.outputs != (1, 1) and not r.alone]
        narrow, wide = self._narrow_and_wide(walked)
        gains = dict.fromkeys(narrow, 0.0)
        for reading in walked:
            root = self._root(reading.operation)
            gains[root] += self._gain(reading, narrow[root], wide[root])
        return {root for root, gain in gains.items() if gain > 0}

    def _narrow_and_wide(self, walked: list[_Reading]) -> tuple[dict[str, int], dict[str, int]]:
        """The pitch of every root without margins between rows, and with them."""
        narrow: dict[str, int] = {}
        for name, geometry in self._nodes.items():
            narrow[self._root(name)] = max(narrow.get(self._root(name), 0), geometry.shape[2])
        wide = dict(narrow)
        for r in walked:
            for name, read, beyond in ((r.operation, r.walked, self._beyond(r)), (r.source, r.source, self._aside(r))):
                root = self._root(name)
                wide[root] = max(wide[root], self._nodes[read].shape[2] + max(beyond))
        return narrow, wide

    def _gain(self, reading: _Reading, narrow: int, wide: int) -> float:
        """Multiply-adds that a pitch without margins saves, less what the copies cost that this input needs then."""
        vectors = flat_vectors(reading.outputs, narrow, self._lanes)
        saved = reading.kept * (flat_vectors(reading.outputs, wide, self._lanes) - vectors)
        if not any(self._beyond(reading)):
            return saved
        channels, shifted = reading.channels, len(reading.phases(True))
        rows = [y for _, y in reading.steps()[0]] or [0]  # none where all meet padding only
        if shifted * channels * (TILE * self._lanes + (max(rows) - min(rows)) * narrow) > MOST_READ:
            saved -= FAR * reading.kept * vectors
        copies = shifted - (len(reading.phases(False)) if reading.strided else 0)
        return saved - COPY * (copies * channels * vectors + STEP)

    def _beyond(self, reading: _Reading) -> tuple[int, int]:
        """Columns read left and right of what is walked."""
        return _beyond(reading.steps()[1], self._nodes[reading.walked].shape[2], reading.outputs[1], 1)

    def _aside(self, reading: _Reading) -> tuple[int, int]:
        """Columns read left and right of the input itself."""
        width = self._nodes[reading.source].shape[2]
        return _beyond(reading.taps[1], width, reading.outputs[1], reading.stride[1])

    def _make_room(self, reading: _Reading, tight: set[str]) -> None:
        """Margins around what is read beyond its edges, or copies."""
        size = reading.outputs
        if reading.alone:
            self._margins(reading.source, reading.taps[0], [], size, reading.stride)
            return
        required = any(self._aside(reading)) and self._root(reading.source) in tight
        if not required:
            self._margins(reading.source, *reading.taps, size, reading.stride)
        if size == (1, 1) or not (reading.strided or required):
            return
        self._start_staged(reading)
        self._unite(reading.staged, reading.operation)
        shifted = self._root(reading.operation) in tight and any(self._beyond(reading))
        rows, columns = reading.steps()
        if shifted:  # what a phase holds of a row is what all outputs of one read, be it beyond the edge
            channels, height, width = self._nodes[reading.staged].shape
            self._widen(reading.staged, (channels, height, max(width, size[1])))
        self._margins(reading.staged, rows, [] if shifted else columns, size, (1, 1))
        geometry = self._nodes[reading.staged]
        self._staged[reading.operation] = Staging(reading.staged, geometry, reading.phases(shifted), shifted, required)

    def _widen(self, name: str, shape: tuple[int, int, int]) -> None:
        geometry = self._nodes[name]
        self._nodes[name] = replace(geometry, shape=shape, pitch=max(geometry.pitch, shape[2]))

    def _start(self, name: str, shape: tuple[int, int, int]) -> None:
        self._nodes[name] = Geometry(shape, shape[2], 0, 0)
        self._parent[name] = name

    def _margins(self, name: str, rows: Taps, columns: Taps, outputs: tuple[int, int], stride: tuple[int, int]) -> None:
        """Make room around a value for everything that is read beyond its edges."""
        geometry = self._nodes[name]
        above, below = _beyond(rows, geometry.shape[1], outputs[0], stride[0])
        left, right = _beyond(columns, geometry.shape[2], outputs[1], stride[1]) if columns else (0, 0)
        pitch = max(geometry.pitch, geometry.shape[2] + max(left, right))
        halo, left = max(geometry.halo, above, below), max(geometry.left, left)
        self._nodes[name] = replace(geometry, pitch=pitch, halo=halo, left=left)

    def _unite(self, a: str, b: str) -> None:
        self._parent[self._root(a)] = self._root(b)

    def _root(self, name: str) -> str:
        while self._parent[name] != name:
            name = self._parent[name]
        return name


def flat_vectors(size: tuple[int, int], pitch: int, lanes: int) -> float:
    """Vectors that cover a plane of (height, width) walked flat.

    A few pixels beyond the last whole one cost a part: filters lie in the lanes there. So they do on planes that are
    smaller than a vector, and nothing between rows is computed.
    """
    whole, rest = divmod((size[0] - 1) * pitch + size[1], lanes)
    if not whole:
        return math.prod(size) / lanes
    return whole + (min(1.0, REST + REST_PIXEL * rest) if rest else 0.0)


def _beyond(taps: Taps, size: int, outputs: int, stride: int) -> tuple[int, int]:
    """How far the taps reach before the first and after the last input."""
    first = min((at for _, at in taps), default=0)
    last = max((at for _, at in taps), default=0) + (outputs - 1) * stride
    return max(0, -first), max(0, last - size + 1)
