from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from prunemap.envs.networks import build_network
from prunemap.kernels.arena import place
from prunemap.kernels.layout import Geometry, walks_rows
from prunemap.kernels.lowering import lower
from prunemap.kernels.pitches import _Planner, flat_vectors, plan_layout
from prunemap.pruning import Choice, Mapping, apply_mapping, capture, misfit
from prunemap.pruning.schemes import SCHEMES

PIECES = st.lists(
    st.tuples(st.integers(1, 40), st.integers(0, 12), st.integers(0, 6)).map(
        lambda t: (16 * t[0], (t[1], t[1] + t[2]))
    ),
    min_size=1,
    max_size=15,
)


@given(pieces=PIECES, scale=st.sampled_from([1, 500]))
def test_memory_in_use_never_overlaps(pieces: list[tuple[int, tuple[int, int]]], scale: int) -> None:
    sizes, spans = [size * scale for size, _ in pieces], [span for _, span in pieces]
    placements, arena = place(sizes, spans)
    for i, (size, span, placed) in enumerate(zip(sizes, spans, placements, strict=True)):
        assert placed.start % 16 == 0
        assert placed.start + size <= arena
        for j in range(i):
            at_once = spans[j][0] <= span[1] and span[0] <= spans[j][1]
            apart = placements[j].start + sizes[j] <= placed.start or placed.start + size <= placements[j].start
            assert apart or not at_once
            assert apart or (placed.shared and placements[j].shared)


@given(
    shape=st.tuples(st.integers(1, 70), st.integers(1, 40), st.integers(1, 40)),
    gap=st.integers(0, 5),
    halo=st.integers(0, 4),
)
def test_planes_do_not_touch(shape: tuple[int, int, int], gap: int, halo: int) -> None:
    geometry = Geometry(shape, shape[2] + gap, halo, gap)
    if geometry.is_vector:
        assert geometry.stride == 1
        return
    assert geometry.stride % 32 == 16  # whole lines, an odd number of them
    assert geometry.stride >= (shape[1] + halo) * geometry.pitch
    assert geometry.size >= geometry.before + shape[0] * geometry.stride


def test_pitches_agree_where_planes_are_walked_together() -> None:
    images = torch.zeros(1, 3, 33, 33)
    model = build_network("mobilenetv2", width=0.25).eval()
    lowered = lower(capture(model, images), model.state_dict())
    layout = plan_layout(lowered, 16)
    for operation in lowered.operations:
        target = layout.values[operation.name]
        if operation.residual is not None:
            assert layout.values[operation.residual].pitch == target.pitch
        if operation.convolution is None or target.shape[1:] == (1, 1):
            continue
        if walks_rows(operation.convolution, target.shape[1:]):
            assert operation.name not in layout.staged
        elif operation.convolution.stride == (1, 1):
            assert layout.values[operation.inputs[0]].pitch == target.pitch
        else:
            assert layout.staged[operation.name].geometry.pitch == target.pitch


@pytest.mark.parametrize("copy", [0.0, 1e9])
def test_rows_have_margins_or_inputs_are_copied(copy: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunemap.kernels.pitches.COPY", copy)
    images = torch.zeros(1, 3, 28, 28)
    model = build_network("resnet20", width=8).eval()
    lowered = lower(capture(model, images), model.state_dict())
    layout = plan_layout(lowered, 16)
    kernels = {o.name: o.convolution for o in lowered.operations if o.convolution is not None}
    assert {name for name, staging in layout.staged.items() if staging.shifted} == {
        name for name, c in kernels.items() if copy == 0.0 and c.padding != (0, 0)
    }
    for name, staging in layout.staged.items():
        pitch, width = layout.values[name].pitch, layout.values[name].shape[2]
        assert (pitch == width) == staging.shifted or kernels[name].stride != (1, 1)
        if staging.shifted:
            assert staging.geometry.shape[2] == width
            assert {column for _, column in staging.phases} == {-1, 0, 1}


def test_margins_stay_where_copies_cost_more() -> None:
    """A few filters do as little with an input as copying it would; where channels have their own none is copied."""
    images = torch.zeros(1, 3, 112, 112)
    pitches = {}
    for name in ("resnet50", "mobilenetv2"):
        model = build_network(name, width=0.25 if name == "mobilenetv2" else 16).eval()
        lowered = lower(capture(model, images), model.state_dict())
        layout = plan_layout(lowered, 16)
        pitches[name] = {g.pitch for o in lowered.operations if (g := layout.values[o.name]).shape[1:] == (7, 7)}
    few = nn.Sequential(nn.Conv2d(3, 64, 1), nn.Conv2d(64, 2, 3, padding=1)).eval()
    lowered = lower(capture(few, images[..., :7, :7]), few.state_dict())
    pitches["few"] = {g.pitch for g in plan_layout(lowered, 16).values.values()}
    assert pitches == {"resnet50": {7}, "mobilenetv2": {7}, "few": {8}}


@pytest.mark.parametrize(("lanes", "vectors"), [(16, (3.7, 4.0)), (8, (6.7, 7.0)), (4, (12.7, 13.9))])
def test_what_margins_cost_depends_on_the_lanes(lanes: int, vectors: tuple[float, float]) -> None:
    assert tuple(flat_vectors((7, 7), pitch, lanes) for pitch in (7, 8)) == pytest.approx(vectors)


def normalised_first() -> nn.Module:
    """Batch norms before the convolutions: they cannot be folded."""
    first, second = nn.Conv2d(3, 256, 3, padding=1), nn.Conv2d(256, 256, 3, padding=1)
    return nn.Sequential(first, nn.ReLU(), nn.BatchNorm2d(256), nn.ReLU(), second)


@pytest.mark.parametrize(
    ("model", "size"),
    [
        (build_network("resnet18", width=32), 112),
        (build_network("mobilenetv2", width=0.25), 112),
        (normalised_first(), 14),
    ],
    ids=["resnet18", "mobilenetv2", "normalised_first"],
)
@pytest.mark.parametrize("family", sorted(SCHEMES))
def test_the_layout_does_not_depend_on_what_is_pruned(family: str, model: nn.Module, size: int) -> None:
    images = torch.zeros(1, 3, size, size)
    model = model.eval()
    network = capture(model, images)
    choice = Choice(SCHEMES[family].example, 1.0 if family == "dense" else 8.0)
    fitting = [layer.name for layer in network.layers if misfit(layer, choice) is None]
    pruned = apply_mapping(model, Mapping(dict.fromkeys(fitting, choice)), network)
    lowered = [lower(network, m.state_dict()) for m in (model, pruned)]
    weighed = [[(reading.channels, reading.kept) for reading in _Planner(each, 16)._readings] for each in lowered]
    assert weighed[0] == weighed[1]
    plain, other = (plan_layout(each, 16) for each in lowered)

    def rows(geometry: Geometry) -> tuple[int, ...]:
        return *geometry.shape[1:], geometry.pitch, geometry.halo, geometry.left

    assert {name: rows(g) for name, g in plain.values.items()} == {name: rows(g) for name, g in other.values.items()}
    assert {name: rows(s.geometry) for name, s in plain.staged.items()} == {
        name: rows(s.geometry) for name, s in other.staged.items()
    }
    depthwise = any(layer.kind == "depthwise" for layer in network.layers)
    assert any(staging.shifted for staging in plain.staged.values()) != depthwise  # else nothing could depend on it


@pytest.mark.parametrize(("channels", "pitch"), [(256, 14), (512, 15), (2, 15)])
def test_margins_stay_where_copies_do_not_fit_or_gain_nothing(channels: int, pitch: int) -> None:
    model = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1)).eval()
    images = torch.zeros(1, channels, 14, 14)
    layout = plan_layout(lower(capture(model, images), model.state_dict()), 16)
    assert {geometry.pitch for geometry in layout.values.values()} == {pitch}
