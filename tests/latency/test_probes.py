"""Which mappings a profile is measured on."""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest
import torch

from prunemap.envs import build_network
from prunemap.latency.probes import catalogue, choices_of, narrows, probes, width_probes
from prunemap.pruning import DENSE, Choice, Mapping, Network, capture, live_counts

SPARSE = catalogue(["unstructured", "simd:8", "block-punched:8x4"], [2.0, 4.0])
ALL = catalogue(["unstructured", "simd:8", "filter", "channel"], [2.0, 4.0])


def test_the_catalogue_is_sorted_and_has_dense_once() -> None:
    assert SPARSE.count(DENSE) == 1
    assert len(SPARSE) == 7
    assert list(SPARSE) == sorted(SPARSE)


def test_equal_choices_are_made_one(network: Network) -> None:
    head = network.layer("head")
    assert choices_of(head, [Choice("unstructured", 2.0), Choice("simd:8", 1.0), DENSE]) == tuple(
        sorted([DENSE, Choice("unstructured", 2.0)])
    )


def test_choices_that_do_not_fit_are_left_out(network: Network) -> None:
    assert choices_of(network.layer("head"), [Choice("block-punched:8x4", 2.0)]) == ()


def test_every_layer_is_seen_under_each_choice(network: Network) -> None:
    first, *others = probes(network, ALL, seed=0)
    assert (first.mapping, first.mixed) == (Mapping(), False)
    for layer in network.layers:
        seen = Counter(probe.mapping[layer.name] for probe in others if probe.mixed)
        for choice in choices_of(layer, ALL):
            alone = narrows(network, layer.name, Mapping({layer.name: choice}))
            assert (seen[choice] >= 1) != alone


@pytest.mark.parametrize("rates", [[2.0, 4.0, 8.0], [1.5, 2.0, 4.0, 8.0, 16.0]])
def test_of_the_rates_every_other_one_and_both_ends_are_measured_first(rates: list[float]) -> None:
    network = capture(build_network("resnet8"), torch.zeros(1, 3, 8, 8))
    choices = catalogue(["pattern:8", "simd:8", "filter"], rates)
    found = [p.mapping["layer3.0.conv2"] for p in probes(network, choices, seed=0, every=2) if p.mixed]
    for scheme, smallest in (("pattern:8", 2.25), ("simd:8", rates[0])):
        seen = sorted({c.rate for c in found if c.scheme == scheme})
        assert seen[0] == pytest.approx(smallest, rel=0.01)
        assert seen[-1] == rates[-1]
        assert len(seen) < len(rates) + 1
    assert len({c.rate for c in found if c.scheme == "filter"}) == len(rates)


def test_at_the_lowest_rate_of_every_scheme_all_layers_are_whole(network: Network) -> None:
    whole = [p for p in probes(network, ALL, seed=0) if {p.mapping[n].scheme for n in ("stem", "conv1")} == {"simd:8"}]
    assert {choice.rate for choice in whole[0].mapping.values()} == {2.0}
    live = live_counts(network, whole[0].mapping)
    assert all((live[x.name].live_in, live[x.name].live_out) == (x.in_channels, x.out_channels) for x in network.layers)


def test_neighbours_are_mixed(network: Network) -> None:
    beside = {(p.mapping["stem"], p.mapping["conv1"]) for p in probes(network, SPARSE, seed=0)}
    assert any(first != second for first, second in beside)
    assert probes(network, SPARSE, seed=0) != probes(network, SPARSE, seed=1)


@pytest.mark.parametrize(
    ("mapping", "layers"),
    [
        ({"conv1": Choice("filter", 2.0)}, {"conv1"}),  # alone in its group
        ({"conv2": Choice("filter", 2.0)}, set()),  # the stem, which it is added to, keeps the channels
        ({"conv2": Choice("filter", 2.0), "stem": Choice("filter", 2.0)}, {"conv2", "stem"}),
        ({"conv2": Choice("filter", 2.0), "stem": Choice("filter", 4.0)}, set()),
        ({"conv2": Choice("channel", 2.0)}, {"conv2"}),  # the only reader
        ({"conv1": Choice("channel", 2.0)}, set()),  # the head reads them too
        ({"head": Choice("filter", 2.0)}, set()),  # the network's output stays
        ({"conv1": Choice("simd:8", 2.0)}, set()),
    ],
)
def test_what_takes_channels_from_neighbours(network: Network, mapping: dict[str, Choice], layers: set[str]) -> None:
    assert {name for name in mapping if narrows(network, name, Mapping(mapping))} == layers


def test_narrow_probes_leave_no_rate_unused(network: Network) -> None:
    assert width_probes(network, []) == []
    assert {c.rate for m in width_probes(network, [2.0, 4.0]) for c in m.values()} == {2.0, 4.0}


def test_widths_of_both_sides_vary_independently(network: Network) -> None:
    seen = {
        (live["conv1"].live_in, live["conv1"].live_out)
        for live in (live_counts(network, mapping) for mapping in width_probes(network, [2.0, 4.0]))
    }
    assert {(i, o) for i in (16, 8, 4) for o in (32, 16, 8)} - {(16, 32)} <= seen


def test_widths_vary_independently_around_blocks_that_change_the_width() -> None:
    """Such a block's three groups are neighbours of one another."""
    network = capture(build_network("resnet8"), torch.zeros(1, 3, 8, 8))
    mappings = width_probes(network, [2.0, 4.0])
    assert len(mappings) == 9
    seen: dict[str, set[tuple[float, float]]] = {}
    for mapping in (Mapping(), *mappings):
        for name, live in live_counts(network, mapping).items():
            layer = network.layer(name)
            seen.setdefault(name, set()).add((layer.in_channels / live.live_in, layer.out_channels / live.live_out))
    pairs = set(product((1.0, 2.0, 4.0), repeat=2))
    assert {name for name, widths in seen.items() if widths == pairs} == set(seen) - {"conv1", "fc"}
    assert {choice.rate for choice in mappings[-1].values()} == {4.0}


def test_the_number_of_widths_is_bounded(network: Network) -> None:
    assert len(width_probes(network, [float(rate) for rate in range(2, 17)])) == 15


def test_a_catalogue_of_dense_alone_is_one_run(network: Network) -> None:
    assert [probe.mapping for probe in probes(network, (DENSE,), seed=0)] == [Mapping()]
