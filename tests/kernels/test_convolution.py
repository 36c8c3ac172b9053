"""Every kernel, every tile: exact on small integers, and close to float64 on real numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import nn

from prunemap.kernels import _engine, isas
from prunemap.kernels.candidate import Candidate
from prunemap.kernels.candidates import enumerate_candidates, other_orders
from prunemap.kernels.task import Task


@dataclass(frozen=True)
class Case:
    name: str
    size: tuple[int, int]
    channels: tuple[int, int]
    kernel: int | tuple[int, int]
    options: dict[str, Any] = field(default_factory=dict)
    density: float = 0.4


CASES = [
    Case("square", (9, 11), (3, 13), 3, {"padding": 1}),
    Case("one_by_one", (5, 7), (8, 16), 1),
    Case("some_inputs", (6, 10), (24, 8), 1, density=0.08),
    Case("stride", (11, 9), (3, 8), 3, {"stride": 2, "padding": 1}),
    Case("stride_even", (32, 32), (2, 9), 3, {"stride": 2, "padding": 1}),
    Case("stride_even_far", (14, 14), (3, 10), 5, {"stride": 2, "padding": 2}),
    Case("stride_even_wide", (6, 68), (2, 9), 3, {"stride": 2, "padding": 1}),
    Case("stride_odd_even", (10, 13), (2, 5), (3, 2), {"stride": (2, 3), "padding": (1, 0)}),
    Case("stride_one_by_one", (9, 8), (4, 6), 1, {"stride": 2}),
    Case("wide_padding", (4, 5), (2, 3), 3, {"padding": 4}),
    Case("padding_beyond_stride", (3, 3), (2, 4), 2, {"stride": 3, "padding": 2}),
    Case("dilation", (12, 10), (3, 4), 3, {"dilation": (2, 3), "padding": 2}),
    Case("dilated_stride", (13, 12), (3, 4), 3, {"dilation": 2, "stride": 2, "padding": 2}),
    Case("no_padding", (7, 6), (3, 4), 5),
    Case("groups", (6, 6), (6, 9), 3, {"groups": 3, "padding": 1}),
    Case("depthwise", (8, 9), (5, 5), 3, {"groups": 5, "padding": 1}, 1.0),
    Case("one_channel_stride", (9, 8), (1, 12), 3, {"stride": 2, "padding": 1}),
    Case("depthwise_stride", (9, 9), (4, 8), 3, {"groups": 4, "stride": 2, "padding": 1}),
    Case("depthwise_stride_two_filters", (9, 12), (3, 6), 3, {"groups": 3, "stride": (3, 2), "padding": 1}),
    Case("depthwise_stride_wide", (7, 75), (3, 3), 3, {"groups": 3, "stride": 2, "padding": 1}, 1.0),
    Case("depthwise_stride_wider", (4, 150), (2, 2), (2, 5), {"groups": 2, "stride": 2, "padding": (0, 2)}, 0.7),
    Case("depthwise_dilated", (12, 9), (2, 4), 3, {"groups": 2, "dilation": 2, "padding": 2}, 1.0),
    Case("depthwise_unequal_steps", (9, 12), (2, 2), 3, {"groups": 2, "stride": (2, 1), "padding": 1}, 1.0),
    Case("depthwise_tall", (21, 40), (2, 2), (9, 1), {"groups": 2, "padding": (4, 0)}, 1.0),
    Case("depthwise_six_rows", (13, 17), (2, 2), (6, 2), {"groups": 2, "padding": 1}, 1.0),
    Case("depthwise_strides", (18, 35), (3, 3), 3, {"groups": 3, "stride": 2, "padding": 1}, 1.0),
    Case("one_pixel_out", (4, 3), (3, 21), (4, 3)),
    Case("one_pixel_map", (1, 1), (7, 70), 3, {"padding": 1}),
    Case("one_pixel_grows", (1, 1), (3, 4), 1, {"padding": 2}),
    Case("one_column", (9, 1), (3, 4), (3, 1), {"padding": (1, 0)}),
    Case("seven", (7, 7), (4, 18), 3, {"padding": 1}),
    Case("fourteen", (14, 14), (2, 33), 1),
    Case("all_zero", (5, 5), (3, 4), 3, {"padding": 1}, 0.0),
]
# every tail from nothing to two vectors of the widest ISA
LANES = max(lanes for isa in isas() for lanes, *_ in _engine.families(isa))
TAILS = [Case(f"tail_{w}", (1, w), (2, 9), (1, 3), {"padding": (0, 1)}) for w in range(1, 2 * LANES + 2, 2)]
# pixels beyond the last vector, for runs of many filters and of few
TAILS += [Case(f"rest_{w}", (2, w), (3, 27), 1) for w in range(9, 13)]
# lists about as long as filters take turns for
TURNS = [Case(f"turn_{n}", (5, 5), (n, 40), 1, density=1.0) for n in (63, 64, 65, 130)]
CASES += [*TAILS, *TURNS]
MARGINS, NO_MARGINS = 1e9, 0.0  # what copying an input seems to cost: without margins inputs are copied
WAYS = [(case, MARGINS) for case in CASES]
WAYS += [(case, NO_MARGINS) for case in CASES if "padding" in case.options and case not in TAILS[::2]]


def build_case(case: Case, integers: bool) -> tuple[nn.Module, torch.Tensor]:
    generator = torch.Generator().manual_seed(sum(map(ord, case.name)))
    conv = nn.Conv2d(*case.channels, case.kernel, bias=True, **case.options)
    model = nn.Sequential(conv, nn.ReLU())
    images = torch.randn(2, case.channels[0], *case.size, generator=generator)
    weight = torch.randn(conv.weight.shape, generator=generator)
    bias = torch.randn(conv.bias.shape if conv.bias is not None else (0,), generator=generator)
    if integers:
        images, weight, bias = ((8 * t).round().clamp(-16, 16) for t in (images, weight, bias))
    mask = torch.rand(weight.shape, generator=generator) < case.density
    with torch.no_grad():
        conv.weight.copy_(weight * mask)
        assert conv.bias is not None
        conv.bias.copy_(bias)
    return model.eval(), images


def all_candidates(task: Task, isa: str) -> list[Candidate]:
    found = list(enumerate_candidates(task, isa))
    found += [other for c in found for other in other_orders(task, c)]
    also_dense = [*found[:2], *[c for c in found if c.passes > 1][:2]]
    return [*found, *(replace(c, dense=True, jammed=False) for c in also_dense)]


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize(("case", "copy"), WAYS, ids=lambda v: v.name if isinstance(v, Case) else f"{v:g}")
def test_every_candidate_is_exact(
    case: Case,
    copy: float,
    isa: str,
    share: int,
    run_with: Any,
    rounded: Any,
    tasks_of: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("prunemap.kernels.pitches.COPY", copy)
    monkeypatch.setattr("prunemap.kernels.task.FIRST_LEVEL", 1024)  # a cache that a few channels fill
    model, images = build_case(case, integers=True)
    with torch.no_grad():
        expected = model.double()(images.double()).float()
    model.float()
    assert case.density == 0 or (expected != 0).float().mean() > 0.05
    (task,) = tasks_of(model, images, isa)
    candidates = all_candidates(task, isa)
    assert candidates
    share = max(share, 1 if copy == MARGINS else 3)
    for candidate in candidates[sum(map(ord, case.name)) % min(share, len(candidates)) :: share]:
        result = run_with(model, images, isa, lambda _, chosen=candidate: chosen)
        assert torch.equal(rounded(result, candidate), expected), str(candidate)


class Residual(nn.Module):
    """A convolution whose input is added to its result."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.conv(x) + x)


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("kernel", [1, 3])
def test_every_candidate_adds_a_residual_once(
    kernel: int, isa: str, share: int, run_with: Any, rounded: Any, tasks_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prunemap.kernels.task.FIRST_LEVEL", 2048)
    case = Case("residual", (11, 9), (26, 26), kernel, {"padding": kernel // 2})
    (conv, _), images = build_case(case, integers=True)
    model = Residual(conv).eval()
    with torch.no_grad():
        expected = model.double()(images.double()).float()
    model.float()
    (task,) = tasks_of(model, images, isa)
    assert task.residual is not None
    candidates = all_candidates(task, isa)
    assert {(c.jammed, c.dense) for c in candidates if c.passes > 1} == {(False, False), (True, False), (False, True)}
    for index, candidate in enumerate(candidates[::share]):
        result = run_with(model, images, isa, lambda _, chosen=candidate: chosen, threads=1 + index % 2)
        assert torch.equal(rounded(result, candidate), expected), str(candidate)


@pytest.mark.parametrize(("changed", "alone"), [
    ({}, True), ({"stride": 1}, True), ({"stride": (3, 2)}, True), ({"stride": 3}, False), ({"groups": 1}, False),
])  # fmt: skip
def test_channels_with_filters_of_their_own_are_read_row_by_row(
    changed: dict[str, Any], alone: bool, tasks_of: Any
) -> None:
    case = Case("rows", (9, 12), (3, 6), 3, {"groups": 3, "stride": 2, "padding": 1, **changed})
    (task,) = tasks_of(*build_case(case, integers=True))
    found = list(enumerate_candidates(task, "portable"))
    assert [c.family == "rows" for c in found] == ([True] if alone else [False] * len(found))
    assert not alone or (task.staging is None and task.source.pitch == 12)


@pytest.mark.parametrize(("size", "kernel", "stride", "joins"), [
    ((14, 14), 1, 1, True), ((14, 14), 3, 1, False), ((14, 14), 1, 2, False), ((1, 1), 1, 1, False),
])  # fmt: skip
def test_rows_are_walked_as_one_where_nothing_lies_between_them(
    size: tuple[int, int], kernel: int, stride: int, joins: bool, tasks_of: Any
) -> None:
    case = Case("joined", size, (3, 40), kernel, {"stride": stride, "padding": kernel // 2})
    for isa in isas():
        (task,) = tasks_of(*build_case(case, integers=True), isa)
        found = [c for c in enumerate_candidates(task, isa) if c.family == "channels"]
        assert task.walked_as_one == joins
        assert all(14 % c.joined == 0 and (c.joined == 1 or joins) for c in found)
        if isa == "avx2":  # six columns: of 14 pixels no tile can make use of all of them, of 196 nearly
            assert joins == any(c.joined == 14 and c.columns == 6 for c in found)


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("blocks", [(3, 8, 8), (8, 3, 8), (5, 5, 8), (8, 8, 9)], ids=str)
@pytest.mark.parametrize("size", [1, 5])
def test_filters_with_equal_zeros_change_places(
    blocks: tuple[int, ...], size: int, isa: str, run_with: Any, rounded: Any, tasks_of: Any
) -> None:
    """Runs of whole blocks in any order, some of them short, also where a linear layer stores whole vectors."""
    case = Case("blocks", (size, size), (12, sum(blocks)), 1, density=1.0)
    model, images = build_case(case, integers=True)
    masks = torch.rand(len(blocks), 12, generator=torch.Generator().manual_seed(1)) < 0.4
    with torch.no_grad():
        kept = masks.repeat_interleave(torch.tensor(blocks), dim=0)[:, :, None, None]
        model[0].weight.copy_(torch.where(model[0].weight == 0, 1.0, model[0].weight) * kept)  # no other zeros
        expected = model.double()(images.double()).float()
    (task,) = tasks_of(model.float(), images, isa)
    found = [c for c in all_candidates(task, isa) if c.reordered]
    assert {c.family for c in found} >= {"channels"}
    for candidate in found:
        result = run_with(model, images, isa, lambda _, chosen=candidate: chosen)
        assert torch.equal(rounded(result, candidate), expected), str(candidate)


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("case", CASES[:14], ids=lambda case: case.name)
def test_real_numbers_against_float64(case: Case, isa: str, run_with: Any, tasks_of: Callable[..., list[Task]]) -> None:
    model, images = build_case(case, integers=False)
    conv = model[0]
    with torch.no_grad():
        exact = model.double()(images.double())
        sums = nn.functional.conv2d(
            images.double().abs(), conv.weight.abs(), conv.bias.abs(), conv.stride, conv.padding, conv.dilation,
            conv.groups,
        )  # fmt: skip
    model.float()
    (task,) = tasks_of(model, images, isa)
    for candidate in all_candidates(task, isa)[::3]:
        result = run_with(model, images, isa, lambda _, chosen=candidate: chosen).double()
        bound = sums
        if candidate.family == "winograd":  # its terms are sums over a cell and what is around it
            size, times = (3, 4) if candidate.columns == 2 else (7, 64)
            bound = times * nn.functional.max_pool2d(sums, size, 1, size // 2)
        assert bool(((result - exact).abs() <= 4 * torch.finfo(torch.float32).eps * bound).all()), str(candidate)


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize(("channel", "tap"), [(0, (0, 0)), (4, (2, 1))])
def test_one_weight_alone(
    isa: str, channel: int, tap: tuple[int, int], run_with: Any, rounded: Any, tasks_of: Any
) -> None:
    conv = nn.Conv2d(5, 9, 3, padding=1, bias=False)
    model = nn.Sequential(conv)
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[7, channel, tap[0], tap[1]] = 3.0
    images = torch.arange(5 * 6 * 6, dtype=torch.float32).reshape(1, 5, 6, 6)
    with torch.no_grad():
        expected = conv(images)
    (task,) = tasks_of(model, images, isa)
    for candidate in all_candidates(task, isa):
        result = run_with(model, images, isa, lambda _, chosen=candidate: chosen)
        assert torch.equal(rounded(result, candidate), expected), str(candidate)


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("copy", [MARGINS, NO_MARGINS])
def test_nan_under_pruned_weights_stays_out(
    isa: str, copy: float, run_with: Any, tasks_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What only pruned weights touch is never read, and what lies beside a plane never gets into it."""
    monkeypatch.setattr("prunemap.kernels.pitches.COPY", copy)
    conv = nn.Conv2d(6, 8, 3, padding=1)
    model = nn.Sequential(conv)
    with torch.no_grad():
        conv.weight[:, 2] = 0.0
        conv.weight[:, 5, :, 2] = 0.0  # never looks to the right
    images = torch.randn(1, 6, 7, 7, generator=torch.Generator().manual_seed(0))
    clean = images.clone()
    images[:, 2] = torch.nan
    clean[:, 2] = 0.0
    with torch.no_grad():
        expected = conv(clean)
    (task,) = tasks_of(model, images, isa)
    for candidate in all_candidates(task, isa):
        result = run_with(model, images, isa, lambda _, chosen=candidate: chosen)
        assert bool(((result - expected).abs() <= 1e-5).all()), str(candidate)


@pytest.mark.parametrize("isa", isas())
def test_nan_reaches_what_it_should(isa: str, run_with: Any, tasks_of: Any) -> None:
    """A NaN in one pixel spreads to the outputs whose window holds it, through the ReLU, and nowhere else.

    By Winograd's filtering it spreads to others of the cells that those lie in.
    """
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU()).eval()
    images = torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    images[0, 0, 3, 7] = torch.nan
    with torch.no_grad():
        expected = model(images).isnan()
    (task,) = tasks_of(model, images, isa)
    for candidate in all_candidates(task, isa):
        result = run_with(model, images, isa, lambda _, chosen=candidate: chosen)
        allowed = expected
        if candidate.family == "winograd":
            reach = 2 * candidate.columns - 1
            allowed = nn.functional.max_pool2d(expected.float(), reach, 1, reach // 2) > 0
        assert bool((result.isnan() >= expected).all()), str(candidate)
        assert bool((result.isnan() <= allowed).all()), str(candidate)
