"""The models besides the table, on an engine whose times are known."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from prunemap.envs import build_network
from prunemap.latency import MODELS, Profile
from prunemap.latency.alike import layer_keys
from prunemap.latency.models.contribution import ContributionModel
from prunemap.latency.models.layer import staging_curve
from prunemap.latency.models.refine import Refiner
from prunemap.latency.validation import HALVES, draw_mappings
from prunemap.pruning import Choice, Mapping, Network, PrunemapError, capture, live_counts

PER_WEIGHT = 1e-8  # as in conftest

SCHEMES, RATES = ["simd:8", "filter"], [2.0, 4.0, 8.0]

pytestmark = pytest.mark.usefixtures("quiet_engine")


@pytest.fixture(scope="module")
def profiles(wide: Network, quiet_engine: None) -> dict[str, Profile]:
    return {name: Profile.build(wide, SCHEMES, RATES, model=name) for name in MODELS.names()}


@pytest.mark.parametrize("name", MODELS.names())
def test_every_model_knows_the_dense_network_and_what_a_filter_saves(
    wide: Network, profiles: dict[str, Profile], name: str
) -> None:
    profile = profiles[name]
    assert profile.planned_for == name
    dense = profile.predict(wide, Mapping())
    assert dense.ms == pytest.approx(profile.dense_ms, rel=0.02)
    half = profile.predict(wide, Mapping({"conv1": Choice("filter", 2.0)}))
    counts = live_counts(wide, Mapping({"conv1": Choice("filter", 2.0)}))
    removed = sum(layer.macs - counts[layer.name].macs for layer in wide.layers)
    assert dense.ms - half.ms == pytest.approx(1e3 * PER_WEIGHT * removed, rel=0.02)
    assert half.low < half.ms < half.high
    assert sum(profile.model().layers_ms(Mapping())) < dense.ms


@pytest.mark.parametrize("name", MODELS.names())
def test_profiles_remember_their_model(wide: Network, profiles: dict[str, Profile], name: str, tmp_path: Path) -> None:
    profiles[name].save(tmp_path / "profile.parquet")
    back = Profile.load(tmp_path / "profile.parquet")
    mapping = Mapping({"conv1": Choice("filter", 4.0)})
    assert back.planned_for == name
    assert back.predict(wide, mapping) == profiles[name].predict(wide, mapping)


def test_eleven_densities_are_measured_for_piecewise_linear(wide: Network, profiles: dict[str, Profile]) -> None:
    rows = profiles["piecewise-linear"].survey.rows
    shares = {round(1 / row.choice.rate, 1) for row in rows if row.layer == "conv1" and row.choice.scheme == "simd:8"}
    assert shares == {0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9}  # and dense
    profile = profiles["piecewise-linear"]
    whole = profile.layer_ms("conv1", Choice())
    assert profile.layer_ms("conv1", Choice("simd:8", 1 / 0.35)) == pytest.approx(0.35 * whole, rel=0.01)


@pytest.mark.parametrize("name", ["channels", "contribution"])
def test_models_of_removed_filters_refuse_other_schemes(wide: Network, profiles: dict[str, Profile], name: str) -> None:
    with pytest.raises(PrunemapError, match=f"{name} prices removed filters"):
        profiles[name].predict(wide, Mapping({"conv1": Choice("simd:8", 2.0)}))


def test_contributions_see_through_residual_connections(wide: Network, profiles: dict[str, Profile]) -> None:
    """A channel of the stem's group is written by the stem and conv2, and read by conv1 and down."""
    model = profiles["contribution"].model()
    assert isinstance(model, ContributionModel)
    each = model.contributions("stem")
    assert each.shape == (64,)
    layers = {layer.name: layer for layer in wide.layers}
    saved = sum(layers[name].macs for name in ("stem", "conv1", "conv2", "down")) / 64
    assert each[10:].mean() == pytest.approx(1e3 * PER_WEIGHT * saved, rel=0.03)
    assert each is model.contributions("conv2")  # the same group
    kept = 16
    left = model.predict(Mapping({"stem": Choice("filter", 4.0), "conv2": Choice("filter", 4.0)})).ms
    assert profiles["contribution"].predict(wide, Mapping()).ms - left == pytest.approx(each[kept:].sum())


def test_filters_of_the_output_have_no_contribution(profiles: dict[str, Profile]) -> None:
    model = profiles["contribution"].model()
    assert isinstance(model, ContributionModel)
    with pytest.raises(PrunemapError, match="cannot be removed"):
        model.contributions("head")
    with pytest.raises(PrunemapError, match="unknown layer"):
        model.contributions("haed")


def test_layers_alike_have_one_key(network: Network) -> None:
    assert len(Counter(layer_keys(network).values())) == len(network.layers)
    twice = Counter(layer_keys(residual_chain()).values())
    assert max(twice.values()) > 1


def residual_chain() -> Network:
    return capture(build_network("resnet20"), torch.zeros(1, 3, 32, 32))


def test_layers_alike_share_measurements(quiet_engine: None) -> None:
    network = residual_chain()
    probes = MODELS["table"].probes(network, [Choice(), *(Choice("simd:8", rate) for rate in RATES)], 0)
    keys = layer_keys(network)
    mixed = [probe.mapping for probe in probes if probe.mixed]
    seen: dict[object, set[Choice]] = {}
    for mapping in mixed:
        for name, choice in mapping.items():
            seen.setdefault(keys[name], set()).add(choice)
    assert len(mixed) == 3  # the lowest rate everywhere, dense, and one more: what a layer without a like has to show
    assert all(len(choices) >= 2 for choices in seen.values())


def test_refining_goes_where_lines_bend(profiles: dict[str, Profile]) -> None:
    wide = profiles["table"].network
    choices = [Choice(), *(Choice("simd:8", rate) for rate in RATES)]
    rows = [row for row in profiles["table"].survey.rows if row.probe < 2 or row.choice.rate in (1.0, 2.0)]
    proposed = Refiner(wide, choices)(rows)
    assert proposed
    taken = Counter(probe.mapping["conv1"] for probe in proposed)
    assert taken[Choice("simd:8", 4.0)] + taken[Choice("simd:8", 8.0)] > taken[Choice("simd:8", 2.0)]


def test_an_interrupted_profile_goes_on(wide: Network, tmp_path: Path) -> None:
    kept = tmp_path / "rows"

    class Stopped(Exception):
        pass

    def stop(done: int, total: int, text: str) -> None:
        if kept.exists():
            raise Stopped

    told: list[str] = []
    with pytest.raises(Stopped):
        Profile.build(wide, [*SCHEMES, "unstructured", "simd:4"], RATES, progress=stop, unfinished=kept)
    assert kept.exists()
    compiled = [0]

    def count(done: int, total: int, text: str) -> None:
        compiled[0] += text.startswith("compiled")
        told.append(text)

    resumed = Profile.build(wide, [*SCHEMES, "unstructured", "simd:4"], RATES, progress=count, unfinished=kept)
    assert not kept.exists()
    fresh = [0]
    Profile.build(wide, [*SCHEMES, "unstructured", "simd:4"], RATES, progress=lambda d, t, x: _add(fresh, x))
    assert compiled[0] < fresh[0]
    mapping = Mapping({"conv1": Choice("simd:4", 4.0)})
    assert resumed.predict(wide, mapping).ms == pytest.approx(
        Profile.build(wide, [*SCHEMES, "unstructured", "simd:4"], RATES).predict(wide, mapping).ms
    )


def _add(count: list[int], text: str) -> None:
    count[0] += text.startswith("compiled")


def test_mappings_are_drawn_from_the_seed_in_two_halves(wide: Network, profiles: dict[str, Profile]) -> None:
    first, again = (draw_mappings(profiles["table"], 20, 16.0, np.random.default_rng(3)) for _ in range(2))
    assert first == again
    assert Counter(one.half for one in first) == dict.fromkeys(HALVES, 10)
    assert len({one.mapping for one in first}) == 20
    assert all(1.0 <= choice.rate <= 16.0 for one in first for choice in one.mapping.values())
    logs = np.sort(np.log([one.prediction.ms for one in first if one.half == HALVES[1]]))
    assert np.diff(logs).max() < 3 * np.diff(logs).mean()


def test_rearranging_many_channels_costs_more_for_each(wide: Network, profiles: dict[str, Profile]) -> None:
    """A curve over the planes, which keeps the largest although they were never steady."""
    rows = [row for row in profiles["table"].survey.rows if row.layer == "conv1"]
    most = max(row.planes for row in rows)
    squared = [
        replace(row, staging_ms=(row.planes / most) ** 2, ms=row.ms - row.staging_ms + (row.planes / most) ** 2)
        for row in rows
    ]
    unsteady = [replace(row, unstable=row.planes == most) for row in squared]
    for known in (squared, unsteady):
        staging = staging_curve([row for row in known if row.planes], lambda row: float(row.planes))
        for share in sorted({row.planes / most for row in rows if row.planes}):
            assert staging.at(share)[0] == pytest.approx(share**2, abs=0.02)


def test_a_row_of_a_part_of_a_layer_tells_what_the_whole_costs(wide: Network, profiles: dict[str, Profile]) -> None:
    profile = profiles["table"]
    whole = next(row for row in profile.survey.rows if row.layer == "conv1" and row.choice == Choice("simd:8", 2.0))
    assert (whole.given, whole.stored, whole.kept) == (64, 128, 0.5)
    told = profile.layer_ms("conv1", whole.choice)
    above = whole.ms - whole.staging_ms
    for given, stored in ((32, 128), (64, 64), (32, 64)):
        share = given / 64 * stored / 128
        part = replace(
            whole, given=given, live_in=given, live_out=stored, stored=stored, kept=0.5 * share,
            ms=whole.staging_ms + above * share,
        )  # fmt: skip
        rows = tuple(part if row is whole else row for row in profile.survey.rows)
        other = replace(profile, survey=replace(profile.survey, rows=rows))
        assert other.layer_ms("conv1", whole.choice) == pytest.approx(told, rel=0.03)
        # What is told from a part counts less than what is told from the whole.
        wrong = replace(part, ms=part.ms + 2 * above * share)
        both = replace(profile, survey=replace(profile.survey, rows=(*profile.survey.rows, wrong)))
        assert both.layer_ms("conv1", whole.choice) == pytest.approx(told, rel=0.03 + share**2)


def test_a_small_part_of_a_layer_does_not_bend_a_curve_that_larger_ones_tell(
    wide: Network, profiles: dict[str, Profile]
) -> None:
    """However wrong what it tells is: with an eighth of its inputs a layer may take no longer than with none."""
    profile = profiles["table"]
    whole = next(row for row in profile.survey.rows if row.layer == "conv1" and row.choice == Choice("simd:8", 2.0))
    part = replace(whole, choice=Choice("simd:8", 3.0), given=8, live_in=8, kept=1 / 24, ms=whole.staging_ms + 1e-9)
    both = replace(profile, survey=replace(profile.survey, rows=(*profile.survey.rows, part)))
    for rate in (2.0, 3.0, 3.5):
        choice = Choice("simd:8", rate)
        assert both.layer_ms("conv1", choice) == pytest.approx(profile.layer_ms("conv1", choice), rel=1e-3)


def test_lists_that_several_filters_share_soon_hold_every_input(wide: Network, profiles: dict[str, Profile]) -> None:
    """Then half of the inputs are half of the time, though the curve is flat over the weights."""
    profile = profiles["table"]
    rows = tuple(
        replace(row, ms=row.staging_ms + PER_WEIGHT * 1e3 * wide.layer("conv1").macs * row.live_in / 64)
        if (row.layer, row.choice.scheme) == ("conv1", "simd:8")
        else row
        for row in profile.survey.rows
    )
    flat = replace(profile, survey=replace(profile.survey, rows=rows))
    mapping = Mapping({"conv1": Choice("simd:8", 4.0), "conv2": Choice("filter", 2.0), "stem": Choice("filter", 2.0)})
    index = [layer.name for layer in wide.layers].index("conv1")
    dense = flat.layer_ms("conv1", Choice())
    assert flat.layer_ms("conv1", Choice("simd:8", 4.0)) == pytest.approx(dense, rel=0.03)
    assert flat.model().layers_ms(mapping)[index] == pytest.approx(dense / 2, rel=0.05)
