from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from prunemap.pruning import (
    DENSE,
    SCHEMES,
    Choice,
    LayerSpec,
    PrunemapError,
    canonical_choice,
    fit_table,
    mask_from_units,
    misfit,
    parse_scheme,
    select_units,
    unit_norms,
)
from prunemap.pruning.schemes.table import EXAMPLES, fit_markdown

DOCS = Path(__file__).resolve().parents[2] / "docs"


def layer(kind: str, filters: int, channels: int, side: int = 1, groups: int = 1) -> LayerSpec:
    return LayerSpec(
        name="layer",
        kind=kind,  # type: ignore[arg-type]
        in_channels=channels * groups,
        out_channels=filters * groups,
        kernel=(side, side),
        stride=(1, 1),
        padding=(0, 0),
        dilation=(1, 1),
        groups=groups,
        in_shape=(channels * groups, 8, 8),
        out_shape=(filters * groups, 8, 8),
        bias=True,
    )


def mask_of(spec: LayerSpec, choice: Choice, weight: torch.Tensor) -> torch.Tensor:
    scheme = parse_scheme(choice.scheme).bind([weight, torch.ones(1, 1, 3, 3)])
    kept = select_units(unit_norms(weight, scheme, spec.groups), scheme, choice.rate)
    return mask_from_units(kept, scheme, spec.weight_shape, spec.groups)


@st.composite
def layers(draw: st.DrawFn) -> LayerSpec:
    filters, channels = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    if draw(st.booleans()):
        return layer("linear", filters, channels)
    if draw(st.booleans()):
        return layer("depthwise", 1, 1, draw(st.sampled_from([1, 3])), groups=channels + 1)
    return layer("conv", filters, channels, draw(st.sampled_from([1, 3])), groups=draw(st.sampled_from([1, 2])))


@st.composite
def choices(draw: st.DrawFn) -> Choice:
    family = draw(st.sampled_from(SCHEMES.names()))
    numbers = [str(draw(st.integers(1, 8))) for _ in SCHEMES[family].parameter_names()]
    rate = draw(st.sampled_from([1.0, 1.2, 2.0, 2.25, 3.0, 4.0, 9.0, 1000.0]))
    return Choice(":".join([family, "x".join(numbers)] if numbers else [family]), rate)


@settings(max_examples=400, deadline=None)
@given(layers(), choices())
def test_the_canonical_choice_gives_the_same_mask(spec: LayerSpec, choice: Choice) -> None:
    assume(misfit(spec, choice) is None)
    canonical = canonical_choice(spec, choice)
    weight = torch.randn(spec.weight_shape)
    assert torch.equal(mask_of(spec, choice, weight), mask_of(spec, canonical, weight))
    assert canonical_choice(spec, canonical) == canonical
    assert misfit(spec, canonical) is None


def all_choices(rate: float) -> list[Choice]:
    """Every scheme with every parameter that may matter on a small layer.

    Not ``filter``, whose mask reaches batch norms and biases too, and not ``pattern``, which depends on the network.
    """
    families = [name for name in SCHEMES if name not in ("filter", "pattern")]
    return [
        Choice(":".join([name, "x".join(map(str, numbers))] if numbers else [name]), rate)
        for name in families
        for numbers in itertools.product([1, 2, 3, 4, 5, 7], repeat=len(SCHEMES[name].parameter_names()))
    ]


@pytest.mark.parametrize("rate", [1.5, 2.0, 4.0, 9.0])
@pytest.mark.parametrize(
    "spec",
    [
        layer("conv", 4, 6, 3),
        layer("conv", 5, 4, 1),
        layer("conv", 4, 2, 1, groups=2),
        layer("linear", 4, 6),
        layer("linear", 1, 5),
        layer("depthwise", 1, 1, 3, groups=4),
        layer("depthwise", 1, 1, 1, groups=4),
    ],
    ids=lambda spec: f"{spec.kind}-{'x'.join(map(str, spec.weight_shape))}",
)
def test_choices_of_equal_masks_are_made_one(spec: LayerSpec, rate: float) -> None:
    """Found by trying: choices that agree on many random weights have one canonical form."""
    fitting = [choice for choice in all_choices(rate) if misfit(spec, choice) is None]
    weights = [torch.randn(spec.weight_shape) for _ in range(12)]
    forms: dict[bytes, set[Choice]] = {}
    for choice in fitting:
        masks = torch.stack([mask_of(spec, choice, weight) for weight in weights])
        forms.setdefault(masks.numpy().tobytes(), set()).add(canonical_choice(spec, choice))
    assert all(len(same) == 1 for same in forms.values()), [same for same in forms.values() if len(same) > 1]


@pytest.mark.parametrize(
    ("spec", "text", "canonical"),
    [
        (layer("conv", 4, 9, 3), "simd:8@4", "column@4"),
        (layer("conv", 4, 9, 1), "simd:8@4", "channel@4"),
        (layer("linear", 4, 9), "column@4", "channel@4"),
        (layer("conv", 16, 9, 3), "simd:1@4", "unstructured@4"),
        (layer("conv", 16, 9, 3), "block-punched:8x1@4", "simd:8@4"),
        (layer("conv", 16, 9, 3), "block-punched:99x99@4", "block-punched:16x9@4"),
        (layer("conv", 16, 9, 3), "unstructured@1", "dense"),
        (layer("conv", 16, 9, 3), "filter@1.01", "dense"),
        (layer("conv", 1, 9, 3), "filter@8", "dense"),
        (layer("conv", 16, 9, 3), "filter@1000", "filter@16"),
        (layer("linear", 8, 8), "block-row:1x4@2", "dense"),
        (layer("linear", 8, 8), "block-column:99x99@2", "channel@2"),
        (layer("linear", 8, 8), "block-row:99x99@2", "block-row:8x8@2"),
        (layer("conv", 16, 9, 3), "pattern:8@2.25", "pattern:8@2.25"),
    ],
)
def test_examples(spec: LayerSpec, text: str, canonical: str) -> None:
    assert str(canonical_choice(spec, Choice.parse(text))) == canonical


@pytest.mark.parametrize(
    ("spec", "text", "reason"),
    [
        (layer("linear", 8, 8), "block-punched:8x4@2", "block-row or block-column"),
        (layer("conv", 8, 8, 3), "block-row:8x4@2", "block-punched for convolutions"),
        (layer("conv", 8, 8, 5), "pattern:8@4", "3x3 kernels, this one is 5x5"),
        (layer("conv", 8, 8, 3), "pattern:8@2", "smallest rate is 2.25, not 2"),
        (layer("linear", 8, 8), "pattern:8@4", "3x3 kernels"),
        (layer("depthwise", 1, 1, 3, 8), "filter@2", "layer before it"),
        (layer("depthwise", 1, 1, 3, 8), "channel@2", "layer before it"),
        (layer("depthwise", 1, 1, 3, 8), "simd:8@2", "use unstructured"),
    ],
)
def test_misfits(spec: LayerSpec, text: str, reason: str) -> None:
    choice = Choice.parse(text)
    assert reason in str(misfit(spec, choice))
    with pytest.raises(PrunemapError, match="layer 'layer'") as error:
        canonical_choice(spec, choice)
    assert choice.scheme in str(error.value)
    assert reason in str(error.value)


def test_dense_fits_everything() -> None:
    assert all(misfit(spec, DENSE) is None for spec in EXAMPLES.values())


def test_fit_table_is_what_the_schemes_say() -> None:
    rows = {row["scheme"].partition(":")[0]: row for row in fit_table()}
    assert tuple(rows) == SCHEMES.names()
    for (name, row), (sort, spec) in itertools.product(rows.items(), EXAMPLES.items()):
        scheme = parse_scheme(SCHEMES[name].example)
        assert row[sort] == ("yes" if scheme.fits(spec) is None else "no")
    assert math.isclose(float(rows["pattern"]["smallest rate"]), 2.25)


def test_docs_show_the_fit_table() -> None:
    assert fit_markdown() in (DOCS / "schemes.md").read_text()
