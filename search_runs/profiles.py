"""The command ``profile``: measure what a network's layers cost here, or show a profile."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from ..envs import load_dataset
from ..envs.trained import structure
from ..latency import Profile, cached_profile, cost_table
from ..pruning import misfit
from ..pruning.errors import PrunemapError
from ..pruning.mapping import DENSE
from . import pictures
from .config import load_config
from .progress import notice, progress_bar
from .search import overrides
from .tables import Column, Row, number, show, text

_SUFFIX = ".parquet"
_RATIOS = (
    text("shape"),
    text("scheme"),
    number("rate", "rate", "g"),
    number("speed_up", "speed-up", ".2f"),
    number("ppr", "PPR", ".2f"),
)
_RATIOS_TITLE = "pruning-to-performance ratio (rate / speed-up), one layer pruned, all others dense"


def profile(args: Namespace) -> int:
    """Build a configuration's profile, or take it from the cache folder, or load a file; then show it."""
    if args.plot is not None:
        pictures.need_matplotlib()
    found = _load(Path(args.config), args) if args.config.endswith(_SUFFIX) else _build(args)
    if args.out is not None:
        found.save(args.out)
        notice(f"written to {args.out}")
    if args.plot is not None:
        pictures.costs(found, args.plot)
        notice(f"drawn to {args.plot}")
    rows = _rows(found)
    if args.format == "table":
        show(_by_layer(found, rows), _columns(found), title=_title(found))
        if args.show:
            show(ratios(found), _RATIOS, title=_RATIOS_TITLE)
    else:
        show(rows, (), args.format)
    return 0


def _load(path: Path, args: Namespace) -> Profile:
    if args.set:
        raise PrunemapError(f"--set: {path} is a profile, not a configuration; nothing in it can be set")
    return Profile.load(path)


def _build(args: Namespace) -> Profile:
    """The profile alone: the network needs no training for it."""
    spec = load_config(args.config, overrides(args)).problem
    if spec.latency.profile != "auto":
        return Profile.load(spec.latency.profile)
    data = load_dataset(spec.data.name, **spec.data.options)
    network = structure(spec, data)
    choices, latency = spec.choices, spec.latency
    with progress_bar() as report:
        return cached_profile(
            network, choices.schemes, choices.rates, latency.threads, isa=latency.isa, model=args.model, progress=report
        )


def _rows(profile: Profile) -> list[Row]:
    """One row per layer and choice that fits it: ms with all channels alive, and the share of the layer's dense ms."""
    rows: list[Row] = []
    for layer in profile.network.layers:
        dense = profile.layer_ms(layer.name, DENSE)
        for choice in profile.choices:
            if misfit(layer, choice) is None:
                ms = profile.layer_ms(layer.name, choice)
                known = {"layer": layer.name, "kind": layer.kind, "scheme": choice.scheme, "rate": choice.rate}
                rows.append(known | {"ms": ms, "of_dense": ms / dense})
    return rows


def _by_layer(profile: Profile, rows: Sequence[Row]) -> list[Row]:
    """The rows of one layer as one, with a cell per scheme: its ms at every rate, in order."""
    merged: dict[str, Row] = {}
    for row in rows:
        cells = merged.setdefault(row["layer"], {"layer": row["layer"], "kind": row["kind"]})
        cells[row["scheme"]] = " ".join(filter(None, (cells.get(row["scheme"]), f"{row['ms']:.4f}")))
    return list(merged.values())


def _columns(profile: Profile) -> list[Column]:
    rates: dict[str, list[str]] = {}
    for choice in sorted(profile.choices, key=lambda choice: choice != DENSE):
        rates.setdefault(choice.scheme, []).append(f"{choice.rate:g}x")
    headings = {
        scheme: scheme if scheme == DENSE.scheme else f"{scheme} {' '.join(of)}" for scheme, of in rates.items()
    }
    return [text("layer"), text("kind"), *(text(scheme, heading) for scheme, heading in headings.items())]


def ratios(profile: Profile) -> list[Row]:
    """One row per layer shape and choice: speed-up over dense, and pruning-to-performance ratio (rate / speed-up)."""
    layers = {layer.name: layer for layer in profile.network.layers}
    found: dict[tuple[str, str, float], Row] = {}
    for cost in cost_table(profile):
        layer = layers[cost.layer]
        if cost.choice != DENSE:
            shape = f"{layer.kind} {'x'.join(map(str, layer.weight_shape))} on {'x'.join(map(str, layer.in_shape[1:]))}"
            known = {"shape": shape, "scheme": cost.choice.scheme, "rate": cost.choice.rate}
            found.setdefault(
                (shape, cost.choice.scheme, cost.choice.rate), known | {"speed_up": cost.speed_up, "ppr": cost.ppr}
            )
    return list(found.values())


def _title(profile: Profile) -> str:
    unstable = f"; {len(profile.unstable)} unsteady" if profile.unstable else ""
    return (
        f"ms per layer, all channels alive; dense network {profile.dense_ms:.4f} ms, {profile.threads} thread(s)\n"
        f"{profile.machine.fingerprint()}{unstable}"
    )
