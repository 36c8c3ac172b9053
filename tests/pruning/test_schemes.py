from __future__ import annotations

import itertools
import math
import pkgutil
from collections import defaultdict
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import prunemap.pruning.schemes as package
from prunemap.pruning import SCHEMES, PrunemapError, Scheme, mask_from_units, parse_scheme, select_units, unit_norms
from prunemap.pruning.schemes import kept_units, kept_weights
from prunemap.pruning.schemes.pattern import PATTERNS, pattern_library

FAMILIES = SCHEMES.names()


@dataclass(frozen=True)
class Case:
    """A scheme on a weight of odd shape, at a rate."""

    scheme: Scheme
    weight: torch.Tensor
    groups: int
    rate: float

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.weight.shape)

    @property
    def norms(self) -> torch.Tensor:
        return unit_norms(self.weight, self.scheme, self.groups)

    @property
    def kept(self) -> torch.Tensor:
        return select_units(self.norms, self.scheme, self.rate)

    @property
    def mask(self) -> torch.Tensor:
        return mask_from_units(self.kept, self.scheme, self.shape, self.groups)


@st.composite
def cases(draw: st.DrawFn, family: str) -> Case:
    numbers = st.integers(1, 6)
    names = SCHEMES[family].parameter_names()
    parameters = "x".join(str(draw(numbers)) for _ in names)
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    filters, channels = groups * draw(st.integers(1, 9)), draw(st.integers(1, 9))
    side = 3 if family == "pattern" else draw(st.sampled_from([1, 2, 3]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    shape = (filters, channels) if side == 1 and draw(st.booleans()) else (filters, channels, side, side)
    weight = torch.randn(shape, generator=generator)
    if draw(st.booleans()):  # Small integers make ties and zeros.
        weight = weight.round()
    smallest = SCHEMES[family].smallest_rate
    rate = draw(st.floats(smallest, 40.0))
    scheme = parse_scheme(f"{family}:{parameters}" if parameters else family)
    dense = torch.randn(4, 4, 3, 3, generator=generator)
    return Case(scheme.bind([dense]), weight, groups, rate)


def unit_of(case: Case, filter_: int, channel: int, position: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The pool and the unit that a weight belongs to, written out from the definitions of the schemes."""
    filters = case.shape[0] // case.groups
    group, row = divmod(filter_, filters)
    numbers = case.scheme.parameters
    p, q = {
        "dense": (filters, case.shape[1]),
        "unstructured": (1, 1),
        "filter": (1, case.shape[1]),
        "channel": (filters, 1),
        "column": (filters, 1),
        "simd": (numbers[0] if numbers else 1, 1),
        "block-punched": numbers,
        "block-row": (1, numbers[-1] if numbers else 1),
        "block-column": (numbers[0] if numbers else 1, 1),
    }[case.scheme.family]
    place = 0 if case.scheme.family in ("dense", "filter", "channel") else position
    pool: tuple[int, ...] = ()
    if case.scheme.family in ("block-row", "block-column"):
        pool = (group, row // numbers[0], channel // numbers[1])
    if case.scheme.family == "dense":
        pool = (group,)
    return pool, (group, row // p, channel // q, place)


def naive_mask(case: Case) -> torch.Tensor:
    """Weight by weight, with dictionaries."""
    flat = case.weight.reshape(case.shape[0], case.shape[1], -1).double()
    members: dict[tuple[int, ...], list[tuple[int, ...]]] = defaultdict(list)
    units_of: dict[tuple[int, ...], dict[tuple[int, ...], None]] = defaultdict(dict)
    for place in itertools.product(*map(range, flat.shape)):
        pool, unit = unit_of(case, *place)
        members[unit].append(place)
        units_of[pool][unit] = None
    mask = torch.zeros_like(flat, dtype=torch.bool)
    for units in units_of.values():
        count = max(1, math.floor(len(units) / case.rate + 0.5))
        norm = {unit: float(case.norms[unit]) for unit in units}
        for unit in units:
            exact = math.sqrt(math.fsum(float(flat[place]) ** 2 for place in members[unit]))
            assert norm[unit] == pytest.approx(exact, rel=1e-12)
        for unit in sorted(units, key=lambda unit: (-norm[unit], unit))[:count]:
            for place in members[unit]:
                mask[place] = True
    return mask.reshape(case.shape)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "pattern"])
def test_keeps_the_largest_units_and_as_many_as_it_should(family: str) -> None:
    @settings(max_examples=60, deadline=None)
    @given(cases(family))
    def check(case: Case) -> None:
        assert torch.equal(case.mask, naive_mask(case))

    check()


@pytest.mark.parametrize("family", FAMILIES)
def test_projection(family: str) -> None:
    """What holds for every scheme: counts as predicted, idempotent, and no more energy with other units."""

    @settings(max_examples=60, deadline=None)
    @given(cases(family))
    def check(case: Case) -> None:
        kept, mask = case.kept, case.mask
        assert kept.shape == case.norms.shape
        assert int(kept.sum()) == kept_units(case.scheme, case.rate, case.shape, case.groups) >= 1
        predicted = kept_weights(case.scheme, case.rate, case.shape, case.groups)
        assert int(mask.sum()) <= predicted
        projected = case.weight * mask
        again = Case(case.scheme, projected, case.groups, case.rate)
        assert torch.equal(projected * again.mask, projected)
        if bool((case.norms[kept] > 0).all()) and family != "pattern":
            assert torch.equal(again.mask, mask)

    check()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("rate", [1.0, 2.25, 3.0, 7.0])
def test_predicted_weights_are_exact_where_units_are_equally_large(family: str, rate: float) -> None:
    scheme = parse_scheme(SCHEMES[family].example).bind([torch.randn(8, 8, 3, 3)])
    weight = torch.randn(32, 64, 3, 3)
    rate = max(rate, scheme.smallest_rate)
    mask = mask_from_units(select_units(unit_norms(weight, scheme), scheme, rate), scheme, tuple(weight.shape))
    assert int(mask.sum()) == kept_weights(scheme, rate, tuple(weight.shape))
    if family != "dense":
        assert int(mask.sum()) == pytest.approx(weight.numel() / rate, rel=0.1)


def test_ties_go_to_the_lower_index() -> None:
    scheme = parse_scheme("unstructured")
    weight = torch.tensor([[1.0, -2.0, 1.0, 1.0, 1.0, 3.0]])
    mask = mask_from_units(select_units(unit_norms(weight, scheme), scheme, 1.5), scheme, (1, 6))
    assert mask.tolist() == [[True, True, True, False, False, True]]


def test_block_row_and_block_column_keep_the_same_fraction_of_every_block() -> None:
    weight = torch.randn(8, 8)
    weight[:4] *= 100
    for name, axis in (("block-row:4x4", 1), ("block-column:4x4", 0)):
        scheme = parse_scheme(name)
        mask = mask_from_units(select_units(unit_norms(weight, scheme), scheme, 2), scheme, (8, 8))
        blocks = mask.reshape(2, 4, 2, 4).permute(0, 2, 1, 3)
        assert (blocks.sum(dim=(2, 3)) == 8).all()
        assert (blocks.all(dim=2 + axis).sum(dim=2) == 2).all()


def test_weights_are_not_changed() -> None:
    weight = torch.randn(4, 4, dtype=torch.float64)
    before = weight.clone()
    unit_norms(weight, parse_scheme("unstructured"))
    assert torch.equal(weight, before)


def test_infinite_weights_are_refused() -> None:
    scheme = parse_scheme("filter")
    for value in (float("nan"), float("inf")):
        weight = torch.ones(4, 4)
        weight[1, 2] = value
        with pytest.raises(PrunemapError, match="not finite"):
            select_units(unit_norms(weight, scheme), scheme, 2)


@pytest.mark.parametrize("family", FAMILIES)
def test_name_round_trip(family: str) -> None:
    scheme = parse_scheme(SCHEMES[family].example)
    assert scheme.family == family
    assert parse_scheme(scheme.name) == scheme
    assert hash(parse_scheme(scheme.name)) == hash(scheme)
    assert scheme.form.startswith(family)


def test_every_file_with_schemes_is_found() -> None:
    files = {module.name for module in pkgutil.iter_modules(package.__path__)}
    homes = {SCHEMES[name].__module__.rpartition(".")[2] for name in FAMILIES}
    assert homes == files - {"base", "units", "table"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("patern:8", "did you mean pattern"),
        ("blockpunched:8x4", "did you mean block-punched"),
        ("", "unknown scheme"),
        ("simd", "write simd:G, for instance simd:8"),
        ("simd:0", "write simd:G"),
        ("simd:-8", "write simd:G"),
        ("simd:8x4", "write simd:G"),
        ("simd:8.0", "write simd:G"),
        ("simd:٣", "write simd:G"),
        ("simd:" + "9" * 5000, "write simd:G"),
        ("block-punched:8", "write block-punched:PxQ"),
        ("block-row:8x", "write block-row:PxQ"),
        ("filter:4", "write filter"),
        ("dense:", "write dense"),
        ("pattern:57", "K from 1 to 56"),
    ],
)
def test_malformed_schemes(text: str, message: str) -> None:
    with pytest.raises(PrunemapError, match=message) as error:
        parse_scheme(text)
    assert "\n" not in str(error.value)


def test_there_are_56_patterns_that_hold_the_centre() -> None:
    assert len(PATTERNS) == 56 == math.comb(8, 3)
    assert all(4 in pattern and len(pattern) == 4 for pattern in PATTERNS)


def test_library_is_the_most_frequent_natural_patterns() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(40, 30, 3, 3, generator=generator), torch.randn(20, 20, 1, 1), torch.randn(5, 7)]
    counts: dict[tuple[int, ...], int] = dict.fromkeys(PATTERNS, 0)
    for kernel in weights[0].reshape(-1, 9).tolist():
        others = sorted((place for place in range(9) if place != 4), key=lambda place: -abs(kernel[place]))[:3]
        counts[tuple(sorted([4, *others]))] += 1
    expected = sorted(PATTERNS, key=lambda pattern: (-counts[pattern], PATTERNS.index(pattern)))
    for count in (1, 8, 56):
        assert pattern_library(weights, count) == tuple(expected[:count])


def test_removed_kernels_have_no_pattern() -> None:
    weight = torch.zeros(10, 3, 3, 3)
    weight[0, 0] = torch.tensor([[0.0, 0, 0], [0, 1, 0], [3, 2, 1]])
    assert pattern_library([weight], 1) == ((4, 6, 7, 8),)


def test_library_needs_a_3x3_convolution() -> None:
    with pytest.raises(PrunemapError, match="no 3x3 convolution"):
        pattern_library([torch.randn(4, 4, 5, 5)], 8)


@settings(max_examples=60, deadline=None)
@given(cases("pattern"))
def test_pattern_keeps_the_best_pattern_of_the_best_kernels(case: Case) -> None:
    library = case.scheme.library  # type: ignore[attr-defined]
    kernels = case.weight.double().square().reshape(-1, 9)
    best = [max(float(kernel[list(shape)].sum()) for shape in library) for kernel in kernels]
    masks = case.mask.reshape(-1, 9)
    kept = {index for index, mask in enumerate(masks) if bool(mask.any())}
    count = max(1, min(len(best), math.floor(len(best) * 2.25 / case.rate + 0.5)))
    assert len(kept) == count
    for index in kept:
        shape = tuple(masks[index].nonzero().flatten().tolist())
        assert shape in library
        assert float(kernels[index][list(shape)].sum()) == pytest.approx(best[index])
    dropped = [best[index] for index in range(len(best)) if index not in kept]
    assert min(best[index] for index in kept) >= max(dropped, default=0.0) * (1 - 1e-12)


def test_pattern_without_library_says_so() -> None:
    with pytest.raises(PrunemapError, match="bind"):
        unit_norms(torch.randn(4, 4, 3, 3), parse_scheme("pattern:8"))
