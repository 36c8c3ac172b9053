"""Live channels that a mapping is expected to leave, against what is left of real weights."""

from __future__ import annotations

import numpy as np
import pytest

from prunemap.latency import synthesise
from prunemap.latency.models.widths import Effect, ExpectedWidths
from prunemap.pruning import Choice, Mapping, Network, apply_mapping, live_channels

STEM, CONV1, CONV2, HEAD = range(4)


def test_without_effects_all_channels_are_live(network: Network) -> None:
    found = ExpectedWidths(network).widths(Mapping(), {})
    assert found == ((3, 16), (16, 32), (32, 16), (16, 10))


@pytest.mark.parametrize(
    ("effects", "widths"),
    [
        ({CONV1: Effect(written=0.5)}, {CONV2: (16, 16)}),  # what is removed does not arrive
        ({CONV2: Effect(read=0.25)}, {CONV1: (16, 8)}),  # what is not read is not computed
        ({STEM: Effect(written=0.5)}, {CONV1: (8, 32), HEAD: (16, 10)}),  # before the addition, not after it
        ({STEM: Effect(written=0.5), CONV2: Effect(written=0.5)}, {HEAD: (12, 10)}),  # by chance both
        ({HEAD: Effect(read=0.5)}, {CONV2: (32, 8), STEM: (3, 16)}),  # conv1 still reads the stem
        ({HEAD: Effect(read=0.5), CONV1: Effect(read=0.5)}, {CONV2: (32, 8), STEM: (3, 12)}),
        ({HEAD: Effect(written=0.5)}, {HEAD: (16, 10)}),  # a layer's own effect is its choice's cost
    ],
)
def test_effects_follow_the_graph(
    network: Network, effects: dict[int, Effect], widths: dict[int, tuple[float, float]]
) -> None:
    found = ExpectedWidths(network).widths(Mapping(), effects)
    full = ExpectedWidths(network).widths(Mapping(), {})
    for index, expected in widths.items():
        assert found[index] == pytest.approx(expected)
    if set(effects) == {CONV1} or set(effects) == {CONV2}:
        assert all(found[i] == full[i] for i in range(4) if i not in widths)


def test_layers_that_remove_alike_remove_the_same(network: Network) -> None:
    alike = Mapping({"stem": Choice("filter", 2.0), "conv2": Choice("filter", 2.0)})
    effects = {STEM: Effect(written=0.5), CONV2: Effect(written=0.5)}
    assert ExpectedWidths(network).widths(alike, effects)[HEAD] == pytest.approx((8, 10))


@pytest.mark.parametrize(
    "choices",
    [
        {"conv1": Choice("filter", 4.0)},
        {"conv2": Choice("channel", 2.0)},
        {"stem": Choice("filter", 2.0), "conv2": Choice("filter", 2.0)},
        {"stem": Choice("filter", 2.0), "conv2": Choice("filter", 4.0), "head": Choice("channel", 2.0)},
        {"conv1": Choice("channel", 4.0), "head": Choice("channel", 2.0)},
    ],
)
def test_expected_widths_are_those_of_random_weights_on_average(network: Network, choices: dict[str, Choice]) -> None:
    mapping = Mapping(choices)
    effects = {}
    for index, layer in enumerate(network.layers):
        share = 1.0 / mapping[layer.name].rate
        if mapping[layer.name].scheme == "filter":
            effects[index] = Effect(written=share)
        if mapping[layer.name].scheme == "channel":
            effects[index] = Effect(read=share)
    seen = []
    for seed in range(20):
        pruned = apply_mapping(synthesise(network, seed), mapping, network)
        live = live_channels(network, pruned.state_dict())
        seen.append([(live[layer.name].inputs.sum(), live[layer.name].outputs.sum()) for layer in network.layers])
    for index, (live_in, live_out) in enumerate(ExpectedWidths(network).widths(mapping, effects)):
        own = effects.get(index, Effect())
        measured = np.mean(seen, axis=0)[index]
        assert measured == pytest.approx([live_in * own.read, live_out * own.written], rel=0.12)
