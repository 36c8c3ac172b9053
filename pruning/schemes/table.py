"""Which scheme fits which layer, asked from the schemes themselves."""

from __future__ import annotations

from ..network import LayerKind, LayerSpec
from .base import SCHEMES, parse_scheme


def _layer(kind: LayerKind, side: int, groups: int) -> LayerSpec:
    return LayerSpec(
        name=kind, kind=kind, in_channels=16, out_channels=16, kernel=(side, side), stride=(1, 1), padding=(0, 0),
        dilation=(1, 1), groups=groups, in_shape=(16, 8, 8), out_shape=(16, 8, 8), bias=False,
    )  # fmt: skip


EXAMPLES: dict[str, LayerSpec] = {
    "conv 3x3": _layer("conv", 3, 1),
    "conv 1x1": _layer("conv", 1, 1),
    "conv 5x5": _layer("conv", 5, 1),
    "depthwise 3x3": _layer("depthwise", 3, 16),
    "depthwise 5x5": _layer("depthwise", 5, 16),
    "linear": _layer("linear", 1, 1),
}
"""A layer of each sort that some scheme treats differently."""


def fit_table() -> tuple[dict[str, str], ...]:
    """One row per scheme family: its form, a yes or no for every sort of layer, and its smallest rate above 1."""
    rows = []
    for family in SCHEMES:
        scheme = parse_scheme(SCHEMES[family].example)
        fits = {sort: "no" if scheme.fits(layer) else "yes" for sort, layer in EXAMPLES.items()}
        rows.append({"scheme": scheme.form.partition(" ")[0], **fits, "smallest rate": f"{scheme.smallest_rate:g}"})
    return tuple(rows)


def fit_markdown() -> str:
    """The same table in Markdown, as the docs show it."""
    rows = fit_table()
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
