"""The command ``bench grid``: the coarse grid of the model ``channels`` against every width of some layers."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict

import torch

from ..envs import build_network, default_input_shape
from ..latency import cached_profile
from ..latency.full_grid import GridError, check_grid, full_grid
from ..pruning import capture
from .progress import progress_bar
from .tables import Row, number, percent, show, text

_COLUMNS = (
    text("layer"),
    number("widths", "widths"),
    percent("mean", "mean |error|", 1),
    percent("of_dense", "of the dense layer's time", 1),
    percent("largest", "largest", 1),
)


def grid(args: Namespace) -> int:
    """Measure the coarse grid of the network, then every width of each layer, and compare."""
    shape = args.shape or default_input_shape(args.network, **args.options)
    model = build_network(args.network, **args.options).eval()
    structure = capture(model, torch.zeros(1, *shape))
    for layer in args.layers:
        full_grid(structure, layer)  # a wrong name is told before anything is measured
    with progress_bar() as report:
        profile = cached_profile(
            structure, ["filter"], [2.0], args.threads, isa=args.isa, model="channels", progress=report
        )
    rows: list[Row] = []
    for layer in args.layers:
        with progress_bar() as report:
            widths = check_grid(profile, layer, report)
        found: Row = asdict(GridError.of(layer, widths))
        rows.append(found if args.format == "table" else found | {"grid": [asdict(width) for width in widths]})
    title = f"{args.network}, model channels, one layer at every width\n{profile.machine.fingerprint()}"
    show(rows, _COLUMNS, args.format, title)
    return 0
