"""Live channels that a mapping is expected to leave, against what is left of real weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunemap.latency import synthesise
from prunemap.latency._pricing import Effect, Graph, Kind
from prunemap.latency.models.widths import ExpectedWidths
from prunemap.pruning import Choice, Mapping, Network, apply_mapping, live_channels

STEM, CONV1, CONV2, DOWN, HEAD = range(5)


def shares(
    network: Network, effects: dict[int, Effect], alike: frozenset[int] = frozenset()
) -> list[tuple[float, float, float, float]]:
    """Per layer: inputs that are not zero, outputs that somebody reads, outputs and inputs that have a place."""
    widths = ExpectedWidths(network)
    zero, unneeded, held, *_ = widths.shares([effects.get(layer, Effect()) for layer in range(5)], alike)
    return [(1 - zero[source], 1 - unneeded[v], held[v], held[source]) for v, source in enumerate(widths.sources)]


def test_without_effects_all_channels_are_live(network: Network) -> None:
    assert shares(network, {}) == [(1.0, 1.0, 1.0, 1.0)] * 5


@pytest.mark.parametrize(
    ("effects", "left"),
    [
        ({CONV1: Effect(written=0.5)}, {CONV1: (1, 1, 0.5, 1), CONV2: (0.5, 1, 1, 0.5)}),  # what goes does not arrive
        ({CONV2: Effect(unread=0.75)}, {CONV1: (1, 0.25, 0.25, 1)}),  # what is not read is not computed
        ({STEM: Effect(written=0.5)}, {CONV1: (0.5, 1, 1, 1), DOWN: (1, 1, 1, 1)}),  # before the addition, not after
        ({STEM: Effect(written=0.5), CONV2: Effect(written=0.5)}, {DOWN: (0.75, 1, 1, 0.75)}),  # by chance both
        ({DOWN: Effect(unread=0.5)}, {CONV2: (1, 0.5, 1, 1), STEM: (1, 1, 1, 1)}),  # conv1 still reads the stem
        ({DOWN: Effect(unread=0.5), CONV1: Effect(unread=0.5)}, {CONV2: (1, 0.5, 0.75, 1), STEM: (1, 0.75, 0.75, 1)}),
        ({HEAD: Effect(written=0.5)}, {HEAD: (1, 1, 1, 1)}),  # the network's output stays
    ],
)
def test_effects_follow_the_graph(
    network: Network, effects: dict[int, Effect], left: dict[int, tuple[float, ...]]
) -> None:
    found = shares(network, effects)
    for layer, expected in left.items():
        assert found[layer] == pytest.approx(expected)


def test_fewer_needed_filters_read_fewer_channels(network: Network) -> None:
    """Each of 16 filters leaves out a channel with probability 0.9: of all that is 0.9 ** 16, of four 0.9 ** 4."""
    effects = {DOWN: Effect(unread=0.9**16, rows=1), HEAD: Effect(unread=0.75)}
    assert shares(network, effects)[CONV2][1] == pytest.approx(1 - 0.9**4)


def test_of_few_filters_that_few_read_none_may_be_needed(network: Network) -> None:
    """One of 16 filters is kept and one of 16 channels read: then conv2 is dead, and so is conv1, which feeds it."""
    widths, rare = ExpectedWidths(network), 1 / 16
    effects = [Effect() for _ in range(5)]
    effects[CONV2], effects[DOWN] = Effect(written=rare), Effect(unread=1 - rare)
    _, unneeded, _, alive, _ = widths.shares(effects, set())
    assert network.layers[CONV2].out_channels == 16
    assert alive[CONV2] == alive[CONV1] == pytest.approx(rare)
    assert unneeded[CONV1] == pytest.approx(1 - rare)
    assert alive[STEM] == alive[DOWN] == 1.0


def test_a_depthwise_layer_dies_with_what_it_follows() -> None:
    """Channel by channel, it is needed where its reader needs it: that is one chance, not two."""
    rare = 1 / 16
    steps = [(0, 3, 3, Kind.layer, 0), (1, 0, 0, Kind.depthwise, 0), (2, 1, 1, Kind.layer, 1)]
    chain = Graph([16, 16, 16], 2, 2, steps, [3, 2], [])
    *_, alive, _ = chain.shares([Effect(written=rare), Effect(), Effect(unread=1 - rare)], set())
    assert alive == pytest.approx([rare, rare, 1.0])


@given(st.integers(1, 16), st.integers(0, 16), st.integers(0, 16))
def test_how_likely_two_choices_meet(filters: int, written: int, needed: int) -> None:
    """Against counting: of all ways to choose what is needed, those that miss what is written."""
    written, needed = min(written, filters), min(needed, filters)
    chain = Graph([filters, 4], 2, 1, [(0, 2, 2, Kind.layer, 0), (1, 0, 0, Kind.layer, 1)], [2, 1], [])
    effects = [Effect(written=written / filters), Effect(unread=1 - needed / filters)]
    *_, alive, _ = chain.shares(effects, set())
    missed = math.comb(filters - written, needed) / math.comb(filters, needed)
    assert alive[0] == pytest.approx(1 - missed, abs=1e-9)


@pytest.mark.parametrize(("written", "read"), [(16, 8), (8, 8), (4, 12), (1, 1)])
def test_how_much_of_what_is_left_is_chance(written: int, read: int) -> None:
    """Against counting: how many of 16 filters are left to both, where any is; and of channels, any or none."""
    chain = Graph([16, 4], 2, 1, [(0, 2, 2, Kind.layer, 0), (1, 0, 0, Kind.layer, 1)], [2, 1], [])
    *_, chance = chain.shares([Effect(written=written / 16), Effect(unread=1 - read / 16)], set())
    counts = np.arange(17)
    share = np.array([math.comb(written, c) * math.comb(16 - written, read - c) if c <= read else 0 for c in counts])
    share = share / share.sum()
    spreads = []
    for first in (1, 0):
        likely, left = share[first:] / share[first:].sum(), counts[first:]
        mean = likely @ left
        spreads.append(math.sqrt(max(0.0, likely @ left**2 - mean**2)) / mean)
    assert chance == pytest.approx(spreads, abs=1e-6)


def test_channels_that_happen_to_be_read_are_chance() -> None:
    chain = Graph([16, 4], 2, 1, [(0, 2, 2, Kind.layer, 0), (1, 0, 0, Kind.layer, 1)], [2, 1], [])
    chosen, happens = (chain.shares([Effect(), Effect(unread=0.5, rows=rows)], set())[-1] for rows in (0, 4))
    assert chosen == [0.0, 0.0]
    assert happens == pytest.approx([math.sqrt(1 / 15)] * 2)  # about that of so many coins


def test_layers_that_remove_alike_remove_the_same(network: Network) -> None:
    effects = {STEM: Effect(written=0.5), CONV2: Effect(written=0.5)}
    group = network.writes["stem"]
    found = shares(network, effects, frozenset({group}))
    assert found[DOWN] == pytest.approx((0.5, 1, 1, 0.5))
    assert found[STEM] == pytest.approx((1, 1, 0.5, 1))


@pytest.mark.parametrize(
    "choices",
    [
        {"conv1": Choice("filter", 4.0)},
        {"conv2": Choice("channel", 2.0)},
        {"stem": Choice("filter", 2.0), "conv2": Choice("filter", 4.0), "down": Choice("channel", 2.0)},
        {"conv1": Choice("channel", 4.0), "down": Choice("channel", 2.0)},
    ],
)
def test_expected_widths_are_those_of_random_weights_on_average(network: Network, choices: dict[str, Choice]) -> None:
    mapping = Mapping(choices)
    effects, alike = {}, set()
    for index, layer in enumerate(network.layers):
        share = 1.0 / mapping[layer.name].rate
        if mapping[layer.name].scheme == "filter":
            effects[index] = Effect(written=share)
            if len(network.groups[network.writes[layer.name]].producers) == 1:
                alike.add(network.writes[layer.name])
        if mapping[layer.name].scheme == "channel":
            effects[index] = Effect(unread=1.0 - share)
    seen = []
    for seed in range(20):
        pruned = apply_mapping(synthesise(network, seed), mapping, network)
        live = live_channels(network, pruned.state_dict())
        seen.append([(live[layer.name].inputs.mean(), live[layer.name].outputs.mean()) for layer in network.layers])
    for index, (produced, needed, _, _) in enumerate(shares(network, effects, frozenset(alike))):
        own = effects.get(index, Effect())
        assert np.mean(seen, axis=0)[index] == pytest.approx(
            [produced * (1.0 - own.unread), needed * own.written], rel=0.12
        )
