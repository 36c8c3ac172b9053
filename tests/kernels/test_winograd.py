"""Winograd's minimal filtering: its terms, exact on small integers, and where it is a choice at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from prunemap.kernels import _engine, isas
from prunemap.kernels.candidate import Candidate
from prunemap.kernels.candidates import enumerate_candidates, other_orders
from prunemap.kernels.task import Task
from prunemap.kernels.winograd import POINTS, make_parts

TasksOf = Callable[..., list[Task]]
LAYERS = [
    (nn.Conv2d(5, 7, 3, padding=1), (8, 10)),
    (nn.Conv2d(3, 70, 3, padding=1), (7, 7)),  # several chunks of filters, an odd map
    (nn.Conv2d(4, 33, 3), (5, 35)),
    (nn.Conv2d(2, 3, 3, padding=2), (1, 2)),
    (nn.Conv2d(3, 9, 3, 2, padding=1), (13, 12)),
    (nn.Conv2d(3, 8, 7, 2, padding=3), (20, 37)),
    (nn.Conv2d(3, 4, 5, (1, 2), padding=(4, 1)), (6, 70)),
    (nn.Conv2d(2, 5, (2, 4), padding=1), (4, 9)),
    (nn.Conv2d(2, 4, 9, padding=4), (11, 6)),
    (nn.Conv2d(2, 4, 3, padding=9), (4, 5)),
]
IDS = [f"{'x'.join(map(str, conv.kernel_size))}/{conv.stride}+{conv.padding} {size}" for conv, size in LAYERS]


def ways(task: Task, isa: str) -> list[Candidate]:
    found = [c for c in enumerate_candidates(task, isa) if c.family == "winograd"]
    return [*found, *(other for c in found for other in other_orders(task, c))]


def with_integers(conv: nn.Conv2d, size: tuple[int, int]) -> torch.Tensor:
    """Small numbers as weights, none of them zero, and as images."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in conv.parameters():
            parameter.copy_(torch.randint(1, 9, parameter.shape, generator=generator))
            parameter *= 1 - 2 * torch.randint(0, 2, parameter.shape, generator=generator)
    return torch.randint(-8, 9, (2, conv.in_channels, *size), generator=generator).float()


@pytest.mark.parametrize("cell", POINTS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", range(1, 12))
def test_terms_add_up_to_the_outputs_of_a_cell(kernel: int, stride: int, cell: int) -> None:
    parts = make_parts(kernel, stride, cell)
    rng = np.random.default_rng(kernel)
    inputs, weight = rng.integers(-8, 9, kernel + stride * (cell - 1)), rng.integers(-8, 9, kernel)
    m = np.zeros(cell + 2)
    for part in parts:
        m[part.components] += (part.factors @ inputs[part.inputs]) * (part.taps @ weight)
    expected = [inputs[at : at + kernel] @ weight for at in range(0, cell * stride, stride)]
    points = np.array(POINTS[cell])
    outputs = [(points**i) @ m[:-1] + (m[-1] if i == cell - 1 else 0.0) for i in range(cell)]
    assert outputs == pytest.approx(expected)
    terms = sum(len(part.inputs) for part in parts)
    assert terms <= cell * kernel
    told = {
        (3, 1, 2): 4, (2, 1, 2): 3, (7, 2, 2): 10, (3, 2, 2): 5,
        (3, 1, 4): 6, (2, 1, 4): 5, (7, 2, 4): 16, (3, 2, 4): 9,
    }  # fmt: skip
    assert terms == told.get((kernel, stride, cell), terms)


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize(("conv", "size"), LAYERS, ids=IDS)
def test_exact(
    conv: nn.Conv2d,
    size: tuple[int, int],
    isa: str,
    share: int,
    run_with: Any,
    rounded: Any,
    tasks_of: TasksOf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = with_integers(conv, size)
    model = nn.Sequential(conv, nn.ReLU6())
    with torch.no_grad():
        conv.bias *= 40.0  # so that all three branches of the clamp are taken
        expected = model.double()(images.double()).float()
    model.float()
    bands = set()
    for memory in (1 << 20, 1 << 14, 1):  # one band, several, one of each row of cells
        monkeypatch.setattr("prunemap.kernels.candidates.BANDS", (memory,))
        (task,) = tasks_of(model, images, isa)
        found = ways(task, isa)
        assert found
        bands |= {c.rows for c in found}
        for index, candidate in enumerate(found[len(bands) % share :: share]):
            result = run_with(model, images, isa, lambda _, chosen=candidate: chosen, threads=1 + index % 2)
            assert torch.equal(rounded(result, candidate), expected), str(candidate)
    assert len(bands) > 1 or expected.shape[2] <= 2


class Residual(nn.Module):
    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.before, self.conv = nn.Conv2d(3, conv.in_channels, 1), conv

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.before(x)
        return torch.relu(self.conv(x) + x)


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("size", [(9, 11), (6, 32)])
def test_a_residual_is_added_once(
    size: tuple[int, int], isa: str, share: int, run_with: Any, rounded: Any, tasks_of: TasksOf
) -> None:
    model = Residual(nn.Conv2d(34, 34, 3, padding=1)).eval()
    images = with_integers(model.before, size)
    with_integers(model.conv, size)
    with torch.no_grad():
        expected = model.double()(images.double()).float()
    model.float()
    _, task = tasks_of(model, images, isa)
    assert task.residual is not None
    plain = next(c for c in enumerate_candidates(tasks_of(model, images, isa)[0], isa) if c.family == "channels")
    for candidate in ways(task, isa)[::share]:
        result = run_with(model, images, isa, lambda t, c=candidate: c if t.residual is not None else plain)
        assert torch.equal(rounded(result, candidate), expected), str(candidate)


def test_inputs_that_nobody_reads_are_left_out(run_with: Any, rounded: Any, tasks_of: TasksOf) -> None:
    conv = nn.Conv2d(6, 8, 3, padding=1)
    images = with_integers(conv, (6, 6))
    with torch.no_grad():
        conv.weight[:, 2] = 0
        conv.weight[3] = 0
        expected = nn.functional.conv2d(images, conv.weight, conv.bias, padding=1)
    images[:, 2] = torch.nan
    (task,) = tasks_of(nn.Sequential(conv), images, isas()[0])
    assert ways(task, isas()[0])
    for candidate in ways(task, isas()[0]):
        result = run_with(nn.Sequential(conv), images, isas()[0], lambda _, chosen=candidate: chosen)
        assert torch.equal(rounded(result, candidate), expected), str(candidate)


@pytest.mark.parametrize(("stride", "padding"), [(1, 1), (2, 1), (1, 0), ((1, 2), 2)])
@pytest.mark.parametrize("seed", range(6))
def test_inputs_that_no_weight_reads_are_left_out(
    seed: int, stride: Any, padding: int, run_with: Any, rounded: Any, tasks_of: TasksOf
) -> None:
    """Columns pruned at random, and a NaN at every input that no weight touches, be it that no tap does."""
    conv = nn.Conv2d(6, 8, 3, stride, padding=padding, bias=False)
    images = with_integers(conv, (9, 8 if padding else 10))[:1]
    with torch.no_grad():
        conv.weight *= torch.rand((1, 6, 3, 3), generator=torch.Generator().manual_seed(seed)) > 0.1 * (1 + seed % 3)
        expected = conv(images)
        outputs = torch.ones_like(expected)
        reached = nn.grad.conv2d_input(images.shape, conv.weight.abs(), outputs, stride=stride, padding=padding)
        images[reached == 0] = torch.nan
    (task,) = tasks_of(nn.Sequential(conv), images, isas()[0])
    assert task.filterings
    for candidate in enumerate_candidates(task, isas()[0]):
        result = run_with(nn.Sequential(conv), images, isas()[0], lambda _, chosen=candidate: chosen)
        assert torch.equal(rounded(result, candidate), expected), str(candidate)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1, groups=2), nn.Conv2d(4, 4, 3, dilation=2, padding=2),
        nn.Conv2d(4, 4, 3, 3), nn.Conv2d(4, 4, (1, 3)), nn.Conv2d(4, 4, 2, 2), nn.Conv2d(4, 4, 12, padding=0),
        nn.Conv2d(2, 2, (2, 193), padding=(0, 100)),
    ],
    ids=str,
)  # fmt: skip
def test_not_a_choice(conv: nn.Conv2d, tasks_of: TasksOf) -> None:
    """Without a gain, across groups, for far steps, for one pixel, and for kernels of very many terms."""
    (task,) = tasks_of(nn.Sequential(conv), with_integers(conv, (12, 12)))
    assert task.filterings == {}
    assert not ways(task, "portable")


def test_what_is_pruned_is_computed_as_it_is(tasks_of: TasksOf) -> None:
    """Inputs that nobody reads count as zeros, and few weights are fewer products without."""
    conv = nn.Conv2d(4, 4, 3, padding=1)
    images = with_integers(conv, (12, 12))
    with torch.no_grad():
        conv.weight[:, 1, 0, 2] = 0
    assert not tasks_of(nn.Sequential(conv), images)[0].filterings[4].holes.size
    with torch.no_grad():
        conv.weight[:, 1, :2, 1:] = 0  # all that reads the pixel of a corner
    assert tasks_of(nn.Sequential(conv), images)[0].filterings[4].holes.tolist() == [[1, 0, 1, 1, 11, 12, 1]]
    strided = nn.Conv2d(4, 4, 3, 2, padding=1)
    with_integers(strided, (12, 12))
    with torch.no_grad():
        strided.weight[:, 2, 1] = 0  # every second row
    holes = tasks_of(nn.Sequential(strided), images)[0].filterings[4].holes
    assert {tuple(hole[:4]) for hole in holes.tolist()} == {(2, 0, 11, 2)}
    images = with_integers(conv, (12, 12))
    with torch.no_grad():
        conv.weight[torch.arange(4), torch.arange(4)] = 0
    (task,) = tasks_of(nn.Sequential(conv), images)
    assert ways(task, "portable")  # three quarters are left
    with torch.no_grad():
        conv.weight[torch.arange(4), (torch.arange(4) + 1) % 4] = 0
        conv.weight[torch.arange(4), (torch.arange(4) + 2) % 4] = 0
    (task,) = tasks_of(nn.Sequential(conv), images)
    assert {*task.filterings} == {2, 4}
    assert {c.columns for c in ways(task, "portable")} == {4}  # of a quarter


def test_real_numbers(run_with: Any, tasks_of: TasksOf) -> None:
    """As close to float64 as sums of the transformed inputs can be."""
    conv = nn.Conv2d(64, 32, 3, padding=1)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(1, 64, 14, 14, generator=generator)
    with torch.no_grad():
        conv.weight.normal_(generator=generator)
        exact = nn.functional.conv2d(images.double(), conv.weight.double(), conv.bias.double(), padding=1)
    (task,) = tasks_of(nn.Sequential(conv), images, isas()[0])
    for candidate in ways(task, isas()[0]):
        result = run_with(nn.Sequential(conv), images, isas()[0], lambda _, chosen=candidate: chosen)
        assert (result - exact).abs().max() <= 1e-5 * exact.abs().max(), str(candidate)


def broken() -> list[dict[str, Any]]:
    (part,) = make_parts(3, 1, 2)
    inputs, factors = part.inputs.tolist(), part.factors
    seven = ([*range(7)], np.ones((7, 7), np.float32))
    return [
        {"rows": []}, {"columns": [([*inputs[:3], 2**15], factors)]}, {"rows": [([-1, *inputs[1:]], factors)]},
        {"rows": [([], factors[:0, :0])]}, {"columns": [seven]}, {"columns": [(inputs, factors[:3])]},
        {"columns": [(inputs[:1], factors[:1, :1])]}, {"rows": [(inputs, factors)] * 100}, {"cell": 3}, {"cell": 4},
        {"components": (5, 4)}, {"components": (4, 2)}, {"step": (3, 1)}, {"step": (1, 0)}, {"step": (1, 2**30)},
        {"padding": (-1, 1)}, {"padding": (1, 2**20)}, {"padding": (1, 2**15 - 1)},
        {"channels": [0, 5]}, {"channels": [-1, 0]}, {"channels": []}, {"band": 0}, {"band": 99}, {"chunk": 0},
        {"chunk": 1}, {"stride": 16}, {"stride": 2**40}, {"bias": np.zeros(3, np.float32)},
        {"holes": [[5, 0, 1, 1, 0, 1, 1]]}, {"holes": [[-1, 0, 1, 1, 0, 1, 1]]}, {"holes": [[0, 0, 10, 1, 0, 1, 1]]},
        {"holes": [[0, 0, 1, 0, 0, 1, 1]]}, {"holes": [[0, 0, 1, 1, -1, 1, 1]]}, {"holes": [[0, 0, 1]]},
        {"holes": [[1, 0, 1, 1, 0, 1, 1], [0, 0, 1, 1, 0, 1, 1]]},
    ]  # fmt: skip


@pytest.mark.parametrize("changed", broken(), ids=str)
def test_broken_steps(
    changed: dict[str, Any], run_with: Any, tasks_of: TasksOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine refuses what could touch memory outside its buffers."""
    real = _engine.Filtering
    names = (
        "cell", "rows", "columns", "components", "step", "padding", "channels", "holes", "band", "chunk", "stride",
        "bias", "clamp",
    )  # fmt: skip
    if "holes" in changed:
        changed = {"holes": np.array(changed["holes"], np.int32)}
    monkeypatch.setattr(
        _engine, "Filtering", lambda *given: real(**{**dict(zip(names, given, strict=True)), **changed})
    )
    conv = nn.Conv2d(5, 4, 3, padding=1)
    images = with_integers(conv, (9, 70))
    monkeypatch.setattr("prunemap.kernels.candidates.BANDS", (1,))
    (task,) = tasks_of(nn.Sequential(conv), images)
    candidate = next(c for c in ways(task, "portable") if c.columns == 2)
    with pytest.raises(ValueError, match=r"winograd|convolution|filters"):
        run_with(nn.Sequential(conv), images, "portable", lambda _: candidate)


@pytest.mark.parametrize("change", ["sets", "crossing", "apart", "row", "weights", "offset", "bias", "scratch"])
def test_broken_products(change: str, run_with: Any, tasks_of: TasksOf, monkeypatch: pytest.MonkeyPatch) -> None:
    """So it does with products: of two chunks of filters, of which the second has one."""
    conv = nn.Conv2d(2, 33, 3, padding=1)
    images = with_integers(conv, (9, 9))
    (task,) = tasks_of(nn.Sequential(conv), images)
    candidate = next(c for c in ways(task, "portable") if c.size == 2 and c.columns == 2)
    real, program = _engine.Filters, _engine.Program

    def filters(runs: Any, offsets: Any, weights: Any, bias: Any, rows: Any, clamp: Any, sets: Any) -> _engine.Filters:
        runs, offsets, rows = runs.copy(), offsets.copy(), rows.copy()
        match change:
            case "sets":
                sets = np.zeros((len(runs), 15), np.int32)
                sets[:, 2] = runs[:, 2]
            case "crossing":
                runs[-1, 3] -= 1
                runs[-1, 4] += 1
            case "apart":
                runs[[0, -1]] = runs[[-1, 0]]
            case "row":
                rows[-1] = 16 * 32
            case "weights":
                weights = weights[:-1]
            case "offset":
                offsets[-1] = offsets.max() + 64
            case "bias":
                bias = bias[:-1]
        return real(runs, offsets, weights, bias, rows, clamp, sets)

    monkeypatch.setattr(_engine, "Filters", filters)
    if change == "scratch":
        monkeypatch.setattr(
            _engine,
            "Program",
            lambda isa, threads, arena, size, out, scratch: program(isa, threads, arena, size, out, scratch - 1),
        )
    with pytest.raises(ValueError, match=r"winograd|convolution|filters"):
        run_with(nn.Sequential(conv), images, "portable", lambda _: candidate)
