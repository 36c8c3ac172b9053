"""Pictures of profiles and of predictions. matplotlib draws them; it is needed for nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..latency import Profile
from ..latency.validation import HALVES, WITHIN, Trial
from ..pruning import misfit, parse_scheme
from ..pruning.errors import PrunemapError
from ..pruning.mapping import DENSE, Choice, Mapping
from ..pruning.network import LayerSpec

_DENSITIES = np.linspace(1 / 16, 1.0, 61)
_MOST_LAYERS = 12


def predictions(trials: Sequence[Trial], profile: Profile, network: str, path: Path) -> None:
    """Predicted against measured latency of random mappings (ALCS, figure 6), and the layers of one added up.

    The second picture is CompactNet's figure 7: what the first n layers take, predicted and measured inside whole runs,
    for the mapping whose latency is the median one.
    """
    figure, (scatter, layers) = _figure(1, 2)
    measured = np.array([trial.measured.ms for trial in trials])
    reach = np.array([measured.min() / 1.1, measured.max() * 1.1])
    scatter.fill_between(reach, reach * (1 - WITHIN), reach * (1 + WITHIN), color="0.92", label="within 10 %")
    scatter.plot(reach, reach, color="0.6", linewidth=1)
    for half, marker in zip(HALVES, "os", strict=True):
        own = [trial for trial in trials if trial.drawn.half == half]
        x = [trial.measured.ms for trial in own]
        scatter.scatter(x, [trial.drawn.prediction.ms for trial in own], s=18, marker=marker, label=half, alpha=0.8)
    scatter.set(xscale="log", yscale="log", xlim=reach, ylim=reach, xlabel="measured, ms", ylabel="predicted, ms")
    scatter.tick_params(axis="x", which="both", labelrotation=30)
    scatter.set_title(f"{network}: {len(trials)} random mappings")
    scatter.legend(frameon=False)
    typical = trials[int(np.argsort(measured)[len(trials) // 2])]
    numbers = np.arange(1, len(profile.network.layers) + 1)
    layers.plot(numbers, np.cumsum(typical.measured_layers), "o-", markersize=3, label="measured")
    layers.plot(numbers, np.cumsum(typical.predicted_layers), "x--", markersize=4, label="predicted")
    layers.set(xlabel="layers executed", ylabel="ms", title="one of them, layer by layer")
    layers.legend(frameon=False)
    _write(figure, path)


def costs(profile: Profile, path: Path) -> None:
    """Latency over density, per scheme, for the layers that take longest; and over the size of blocks.

    The first pictures are figure 5 of ALCS, with a line per scheme; the last one shows figures 5, 9 and 10 of the
    scheme-mapping paper: one line per layer over the weights of a block, at the median rate of the profile.
    """
    distinct: dict[object, LayerSpec] = {}
    for layer in sorted(profile.network.layers, key=lambda layer: -profile.layer_ms(layer.name, DENSE)):
        distinct.setdefault((layer.weight_shape, layer.in_shape, layer.stride), layer)
    shown = list(distinct.values())[:_MOST_LAYERS]
    columns = min(3, len(shown) + 1)
    figure, grid = _figure(-(-(len(shown) + 1) // columns), columns)
    axes = np.ravel(grid)
    colours = {scheme: f"C{i % 10}" for i, scheme in enumerate(sorted({c.scheme for c in profile.choices}))}
    for axis, layer in zip(axes, shown, strict=False):
        for scheme in _schemes(profile, layer):
            densities = [d for d in _DENSITIES if 1 / d >= _least_rate(scheme)]
            ms = [profile.layer_ms(layer.name, Choice(scheme, 1 / d)) for d in densities]
            axis.plot(densities, ms, label=scheme, color=colours[scheme], linewidth=1.2)
        shape = "x".join(map(str, (*layer.weight_shape, *layer.in_shape[1:])))
        axis.set(xlabel="density", ylabel="ms", ylim=(0, None))
        axis.set_title(f"{layer.name}  {shape}", fontsize=8)
        axis.legend(frameon=False, fontsize=6)
    _blocks(profile, shown, axes[len(shown)])
    for axis in axes[len(shown) + 1 :]:
        axis.set_axis_off()
    _write(figure, path)


def _blocks(profile: Profile, layers: Sequence[LayerSpec], axis: Any) -> None:
    rates = sorted({choice.rate for choice in profile.choices} - {DENSE.rate})
    rate = rates[len(rates) // 2]
    for layer in layers:
        sizes: dict[int, float] = {}  # the fastest of equal size
        for scheme in _schemes(profile, layer):
            filters, channels, *_ = layer.weight_shape
            rows, columns = parse_scheme(scheme).block(filters // layer.groups, channels)
            if parse_scheme(scheme).removes == "weights" and rate >= _least_rate(scheme):
                ms = profile.layer_ms(layer.name, Choice(scheme, rate)) / profile.layer_ms(layer.name, DENSE)
                size = min(rows, filters) * min(columns, channels)
                sizes[size] = min(ms, sizes.get(size, ms))
        axis.plot(*zip(*sorted(sizes.items()), strict=True), "o-", markersize=3, linewidth=1, label=layer.name)
    axis.set(xscale="log", xlabel="filters x channels of a block", ylabel="share of dense", ylim=(0, None))
    axis.set_title(f"block size, rate {rate:g}", fontsize=8)
    axis.legend(frameon=False, fontsize=5)


def _schemes(profile: Profile, layer: LayerSpec) -> list[str]:
    fitting = {c.scheme for c in profile.choices if c != DENSE and misfit(layer, c) is None}
    return sorted(scheme for scheme in fitting if _priced(profile, layer, scheme))


def _priced(profile: Profile, layer: LayerSpec, scheme: str) -> bool:
    try:
        profile.predict(profile.network, Mapping({layer.name: Choice(scheme, max(4.0, _least_rate(scheme)))}))
    except PrunemapError:
        return False
    return True


def _least_rate(scheme: str) -> float:
    return parse_scheme(scheme).smallest_rate


def need_matplotlib() -> Any:
    """The class of figures; called before anything long begins.

    Raises:
        PrunemapError: When matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise PrunemapError("pictures need matplotlib: pip install 'prunemap[pictures]'") from None
    return Figure


def _figure(rows: int, columns: int) -> tuple[Any, Any]:
    figure = need_matplotlib()(figsize=(5.2 * columns, 4.2 * rows), layout="constrained")
    return figure, figure.subplots(rows, columns)


def _write(figure: Any, path: Path) -> None:
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise PrunemapError(f"{path}: the picture cannot be written: {error}") from None
