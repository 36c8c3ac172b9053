"""Profiles on an engine whose times are known: what is recovered, kept on disk and refused."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from prunemap.latency import Profile, cached_profile, cost_table, survey, synthesise
from prunemap.latency.probes import catalogue, choices_of
from prunemap.latency.rows import Row
from prunemap.pruning import (
    DENSE,
    Choice,
    Mapping,
    Network,
    PrunemapError,
    Pruner,
    apply_mapping,
    capture,
    live_channels,
)

SCHEMES = ["unstructured", "simd:8", "block-punched:8x4", "filter", "channel"]
RATES = [2.0, 4.0, 8.0]

pytestmark = pytest.mark.usefixtures("quiet_engine")


@pytest.fixture(scope="module")
def profile(network: Network, quiet_engine: None) -> Profile:
    return Profile.build(network, SCHEMES, RATES)


@pytest.fixture(scope="module")
def wide_profile(wide: Network, quiet_engine: None) -> Profile:
    return Profile.build(wide, SCHEMES, RATES)


def random_mapping(network: Network, rng: np.random.Generator, schemes: list[str]) -> Mapping:
    choices = {layer.name: choices_of(layer, catalogue(schemes, RATES)) for layer in network.layers}
    return Mapping({name: own[rng.integers(len(own))] for name, own in choices.items()})


def true_ms(network: Network, mapping: Mapping) -> float:
    state = apply_mapping(synthesise(network, seed=7), mapping, network).state_dict()
    return 1e3 * float(survey.compile_state(network, state, 1, "auto").time(1)[0])


def test_dense_is_predicted_as_measured(network: Network, profile: Profile) -> None:
    assert profile.dense_ms == pytest.approx(true_ms(network, Mapping()))
    assert profile.predict(network, Mapping()).ms == pytest.approx(profile.dense_ms)


@pytest.mark.parametrize(("schemes", "mean", "worst"), [(SCHEMES[:3], 0.02, 0.1), (SCHEMES, 0.05, 0.2)])
def test_costs_that_add_are_predicted(
    wide: Network, wide_profile: Profile, schemes: list[str], mean: float, worst: float
) -> None:
    """What is left is chance: which channels are left unread or removed twice depends on the weights."""
    rng = np.random.default_rng(0)
    mappings = [random_mapping(wide, rng, schemes) for _ in range(12)]
    errors = [abs(wide_profile.predict(wide, m).ms / true_ms(wide, m) - 1.0) for m in mappings]
    assert np.mean(errors) < mean
    assert max(errors) < worst


def test_the_band_holds_the_prediction_and_grows_with_noise(
    network: Network, profile: Profile, fake_engine: Callable[[float], None]
) -> None:
    mapping = Mapping({"conv1": Choice("simd:8", 4.0)})
    quiet = profile.predict(network, mapping)
    fake_engine(0.3)
    noisy = Profile.build(network, SCHEMES, RATES).predict(network, mapping)
    for prediction in (quiet, noisy):
        assert 0 <= prediction.low < prediction.ms < prediction.high
    assert (noisy.high - noisy.low) / noisy.ms > (quiet.high - quiet.low) / quiet.ms


def test_noisy_rows_are_flagged(network: Network, fake_engine: Callable[[float], None]) -> None:
    fake_engine(3.0)
    assert Profile.build(network, ["simd:8"], [2.0]).unstable
    fake_engine(0.0)
    assert not Profile.build(network, ["simd:8"], [2.0]).unstable


def test_a_search_refuses_what_was_never_steady(profile: Profile) -> None:
    chosen = Choice("simd:8", 2.0)
    shaken = [
        dataclasses.replace(row, unstable=True, mad_ms=row.ms) if row.choice == chosen else row
        for row in profile.survey.rows
    ]

    def of(rows: list[Row]) -> Profile:
        return dataclasses.replace(profile, survey=dataclasses.replace(profile.survey, rows=tuple(rows)))

    profile.check_steady()
    of([*shaken, *(row for row in profile.survey.rows if row.choice == chosen)]).check_steady()
    with pytest.raises(PrunemapError, match="never measured steadily, conv"):
        of(shaken).check_steady()


def test_rates_between_measured_ones_are_interpolated(network: Network, profile: Profile) -> None:
    found = [profile.layer_ms("conv1", Choice("simd:8", rate)) for rate in (1.5, 2.0, 3.0, 4.0, 6.0, 8.0)]
    assert found == sorted(found, reverse=True)
    assert found[2] == pytest.approx(profile.layer_ms("conv1", DENSE) / 3, rel=0.1)


def test_beyond_the_highest_rate_the_band_widens(network: Network, profile: Profile) -> None:
    inside, outside = (profile.predict(network, Mapping({"conv1": Choice("simd:8", rate)})) for rate in (8.0, 64.0))
    assert outside.ms < inside.ms
    assert outside.high - outside.low > inside.high - inside.low


def test_prediction_measures_nothing(network: Network, profile: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(survey, "compile_state")
    monkeypatch.delattr(survey, "Pruner")
    assert profile.predict(network, Mapping({"conv1": Choice("filter", 2.0)})).ms > 0


def test_weights_tell_which_layers_are_dead(network: Network, profile: Profile, tmp_path: Path) -> None:
    # Of 16 channels conv2 keeps one, and down reads one: mostly another, so that conv1 is not computed either.
    mapping = Mapping({"conv2": Choice("filter", 16.0), "down": Choice("channel", 16.0)})
    chance = profile.predict(network, mapping)
    found = set()
    for seed in range(12):
        state = synthesise(network, seed).state_dict()
        known = profile.with_weights(state)
        live = live_channels(network, Pruner(network, state).state(mapping))
        needed = bool(live["conv2"].outputs.any())
        prediction = known.predict(network, mapping)
        assert (prediction.ms > chance.ms) == needed
        assert prediction.high - prediction.low < chance.high - chance.low
        assert sum(known.model().layers_ms(mapping)) == pytest.approx(prediction.ms - profile.survey.constant.ms)
        found.add(needed)
    assert found == {True, False}
    assert known.predict(network, Mapping()) == profile.predict(network, Mapping())
    known.save(tmp_path / "known.parquet")
    assert Profile.load(tmp_path / "known.parquet").predict(network, mapping) == chance
    assert pickle.loads(pickle.dumps(known)).predict(network, mapping) == prediction


def test_weights_tell_how_wide_layers_are(network: Network, profile: Profile) -> None:
    # Which channels a tenth of conv2's vectors read is chance, and which of them conv1 keeps.
    mapping = Mapping({"conv1": Choice("filter", 2.0), "conv2": Choice("simd:8", 10.0)})
    found = []
    for seed in range(6):
        state = synthesise(network, seed).state_dict()
        live = live_channels(network, Pruner(network, state).state(mapping))
        assert all(layer.outputs.any() for layer in live.values())
        prediction = profile.with_weights(state).predict(network, mapping)
        found.append((int(live["conv1"].outputs.sum()), profile.with_weights(state).model().layers_ms(mapping)[1]))
        assert prediction.high - prediction.low < 1.5 * prediction.ms
    assert len({width for width, _ in found}) > 1
    assert [ms for _, ms in sorted(found)] == sorted(ms for _, ms in found)


def test_a_layer_costs_the_same_alone_and_in_the_sum(network: Network, profile: Profile) -> None:
    choice = Choice("simd:8", 4.0)
    saved = profile.layer_ms("conv1", DENSE) - profile.layer_ms("conv1", choice)
    difference = profile.dense_ms - profile.predict(network, Mapping({"conv1": choice})).ms
    assert difference == pytest.approx(saved)


def test_the_cost_table_has_every_choice_that_fits(network: Network, profile: Profile) -> None:
    rows = cost_table(profile)
    assert [row.layer for row in rows if row.choice == DENSE] == [layer.name for layer in network.layers]
    dense, pruned = (
        next(r for r in rows if r.layer == "conv1" and r.choice == c) for c in (DENSE, Choice("simd:8", 4))
    )
    assert (dense.speed_up, dense.ppr) == (1.0, 1.0)
    assert pruned.speed_up == pytest.approx(4.0, rel=0.1)
    assert pruned.ppr == pytest.approx(4.0 / pruned.speed_up)
    assert pruned.to_dict()["choice"] == "simd:8@4"


def test_saved_and_loaded_profiles_say_the_same(network: Network, profile: Profile, tmp_path: Path) -> None:
    profile.save(tmp_path / "a.parquet")
    back = Profile.load(tmp_path / "a.parquet")
    mapping = random_mapping(network, np.random.default_rng(0), SCHEMES)
    assert back.predict(network, mapping) == profile.predict(network, mapping)
    assert back.digest() == profile.digest()
    assert (back.network, back.choices, back.threads, back.seed) == (network, profile.choices, 1, 0)
    assert back.machine == profile.machine
    assert back.survey == profile.survey
    back.check_machine()


def test_a_profile_that_predicted_can_be_copied(network: Network, profile: Profile) -> None:
    mapping = random_mapping(network, np.random.default_rng(0), SCHEMES)
    predictions = {model: profile.predict(network, mapping, model) for model in ("table", "piecewise-linear")}
    there = pickle.loads(pickle.dumps(profile))
    assert {model: there.predict(there.network, mapping, model) for model in predictions} == predictions


def test_a_profile_of_another_machine_predicts_but_is_not_compared(network: Network, profile: Profile) -> None:
    other = dataclasses.replace(profile, machine=dataclasses.replace(profile.machine, cpu="Zilog Z80"))
    assert other.predict(network, Mapping()) == profile.predict(network, Mapping())
    with pytest.raises(PrunemapError, match="another machine: measured on Zilog Z80"):
        other.check_machine()


def damage(path: Path, table: pa.Table, metadata: bytes | None) -> None:
    pq.write_table(table.replace_schema_metadata({b"prunemap-profile": metadata} if metadata else {}), path)


@pytest.mark.parametrize("case", ["missing", "text", "cut", "foreign", "format", "header", "json", "columns", "nan"])
def test_bad_files_are_refused_in_one_line(profile: Profile, tmp_path: Path, case: str) -> None:
    path = tmp_path / "profile.parquet"
    profile.save(path)
    table, good = pq.read_table(path), path.read_bytes()
    header: bytes = table.schema.metadata[b"prunemap-profile"]
    nan = pa.array(np.full(len(table), np.nan))
    make = {
        "missing": path.unlink,
        "text": lambda: path.write_text("latency,ms\n"),
        "cut": lambda: path.write_bytes(good[: len(good) // 2]),
        "foreign": lambda: damage(path, table, None),
        "format": lambda: damage(path, table, header.replace(b'"format":', b'"format":9')),
        "header": lambda: damage(path, table, b'{"format": 1}'),
        "json": lambda: damage(path, table, b"[1]"),
        "columns": lambda: damage(path, table.drop_columns(["kept"]), header),
        "nan": lambda: damage(
            path, table.set_column(table.schema.get_field_index("ms"), table.field("ms"), nan), header
        ),
    }
    make[case]()
    with pytest.raises(PrunemapError) as error:
        Profile.load(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_another_network_is_refused(profile: Profile) -> None:
    other = capture(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)), torch.zeros(1, 3, 8, 8))
    with pytest.raises(PrunemapError, match="another network"):
        profile.predict(other, Mapping())


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (Mapping({"conv9": Choice("simd:8", 2.0)}), "unknown layer 'conv9'"),
        (Mapping({"head": Choice("block-punched:8x4", 2.0)}), "does not fit"),
        (Mapping({"conv1": Choice("simd:4", 2.0)}), "simd:4 is not in this profile"),
    ],
)
def test_mappings_that_cannot_be_priced_are_refused(
    network: Network, profile: Profile, mapping: Mapping, message: str
) -> None:
    with pytest.raises(PrunemapError, match=message):
        profile.predict(network, mapping)


def test_an_unknown_model_is_refused(network: Network, profile: Profile) -> None:
    with pytest.raises(PrunemapError, match="did you mean table"):
        profile.predict(network, Mapping(), model="tabel")


def test_progress_counts_up_to_the_end(network: Network) -> None:
    told: list[tuple[int, int, str]] = []
    Profile.build(network, SCHEMES, RATES, progress=lambda *args: told.append(args))
    done = [entry[0] for entry in told]
    assert done == sorted(done)
    assert told[-1][0] == told[-1][1]


def test_the_cache_is_filled_once_for_each_question(network: Network, own_cache: Path) -> None:
    calls: list[str] = []

    def count(done: int, total: int, text: str) -> None:
        calls.append(text)

    first = cached_profile(network, ["simd:8"], [2.0], progress=count)
    assert calls
    calls.clear()
    assert cached_profile(network, ["simd:8"], [2.0], progress=count).digest() == first.digest()
    assert not calls
    cached_profile(network, ["simd:8"], [4.0], progress=count)
    assert calls
    assert len(list((own_cache / "profiles").iterdir())) == 2


def test_large_networks_are_measured_in_turns(
    network: Network, profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "RESIDENT_BYTES", 1)
    mapping = random_mapping(network, np.random.default_rng(0), SCHEMES)
    again = Profile.build(network, SCHEMES, RATES)
    assert again.predict(network, mapping).ms == pytest.approx(profile.predict(network, mapping).ms)
