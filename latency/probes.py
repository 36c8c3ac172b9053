"""Which mappings a profile is measured on: every choice of every layer, in the company it will run in."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ..pruning import canonical_choice, misfit, parse_scheme
from ..pruning.choices import lone_reader, shared_filters
from ..pruning.mapping import DENSE, Choice, Mapping
from ..pruning.network import LayerSpec, Network
from .alike import Key, layer_keys

EVERY = 2
"""Of a scheme's rates, each so many-th is measured before it is known where more are needed."""
WIDTHS = 3
"""Most widths below full at which channel removal is measured."""
COLOURS = 3
"""Kinds of channel groups that are narrowed apart from one another."""


@dataclass(frozen=True)
class Probe:
    """One mapping to compile and time.

    Attributes:
        mapping: The mapping.
        mixed: Whether every layer has a choice of its own; otherwise whole channel groups are narrowed, or nothing.
    """

    mapping: Mapping
    mixed: bool


def catalogue(schemes: Iterable[str], rates: Iterable[float]) -> tuple[Choice, ...]:
    """Dense and every scheme at every rate, sorted, each once."""
    rates = tuple(rates)
    return tuple(sorted({DENSE, *(Choice(scheme, rate) for scheme in schemes for rate in rates)}))


def choices_of(layer: LayerSpec, choices: Iterable[Choice]) -> tuple[Choice, ...]:
    """The choices that fit ``layer``, equal ones made one, sorted."""
    return tuple(sorted({canonical_choice(layer, choice) for choice in choices if misfit(layer, choice) is None}))


def narrows(network: Network, layer: str, mapping: Mapping) -> bool:
    """Whether the layer's choice takes channels from its neighbours too, and does not only save its own work.

    It does for ``filter`` when all producers of a group choose alike, and for ``channel`` in the one layer that reads
    a group.

    Args:
        network: The network.
        layer: Name of the layer.
        mapping: Canonical choices.
    """
    removes = parse_scheme(mapping[layer].scheme).removes
    if removes == "filters":
        group = network.groups[network.writes[layer]]
        return not group.fixed and shared_filters(group, mapping) is not None
    return removes == "channels" and lone_reader(network, network.groups[network.reads[layer]]) == layer


def probes(network: Network, choices: Sequence[Choice], seed: int, every: int = 1) -> list[Probe]:
    """Mappings that together show each layer under each of its choices; the first is the dense network.

    The second is the narrowest one. Then come the other narrow probes; whole probes, in which all layers take the
    lowest rate of one scheme, so that neighbours leave every layer whole there; and mixed probes: each layer goes
    through its other choices in an order of its own, so that one mapping measures one choice of every layer and no
    choice is always seen beside the same neighbours. Layers that cost alike (``layer_keys``) share these among them.
    Choices that always narrow a group are left to ``width_probes``.

    Args:
        network: The network.
        choices: The catalogue.
        seed: Decides the orders.
        every: Of the rates of a scheme only each so many-th is taken, and the ends: the others where they are asked for
            when these have been measured.
    """
    some = _some_of(with_smallest(choices), every)
    whole = _whole_probes(network, some)
    shown = {layer.name: {probe.mapping[layer.name] for probe in whole} - {DENSE} for layer in network.layers}
    others = {
        layer.name: [c for c in own_choices(network, layer, some) if c not in shown[layer.name]]
        for layer in network.layers
    }
    mixed = [Probe(mapping, True) for mapping in _shuffled(network, others, np.random.default_rng(seed))]
    narrow = [Probe(mapping, False) for mapping in width_probes(network, _rates(choices))]
    return [Probe(Mapping(), False), *reversed(narrow), *whole, *mixed]


def _rates(choices: Iterable[Choice]) -> list[float]:
    return sorted({choice.rate for choice in choices} - {DENSE.rate})


def _some_of(choices: Iterable[Choice], every: int) -> list[Choice]:
    """Each so many-th rate of every scheme and its ends; all of schemes that remove filters or channels.

    A probe in which a layer's neighbours happen to remove the same filters tells nothing of these.
    """
    rates: dict[str, list[Choice]] = {}
    for choice in sorted(choices):
        if choice.rate >= parse_scheme(choice.scheme).smallest_rate:
            rates.setdefault(choice.scheme, []).append(choice)
    step = {scheme: every if parse_scheme(scheme).removes == "weights" else 1 for scheme in rates}
    return [c for scheme, own in rates.items() for i, c in enumerate(own) if i % step[scheme] == 0 or c == own[-1]]


def with_smallest(choices: Sequence[Choice]) -> list[Choice]:
    """``choices``, and the smallest rate of each scheme, where that lies above the smallest one asked for.

    A pattern keeps four weights of nine at most.
    """
    rates = [choice.rate for choice in choices if choice != DENSE]
    smallest = {name: parse_scheme(name).smallest_rate for name in {c.scheme for c in choices if c != DENSE}}
    return [*choices, *(Choice(name, rate) for name, rate in sorted(smallest.items()) if rate > min(rates))]


def own_choices(network: Network, layer: LayerSpec, choices: Iterable[Choice]) -> list[Choice]:
    """Choices that leave the layer's neighbours whole as long as these choose otherwise."""
    return [c for c in choices_of(layer, choices) if not narrows(network, layer.name, Mapping({layer.name: c}))]


def _whole_probes(network: Network, choices: Iterable[Choice]) -> list[Probe]:
    """One probe for each scheme that removes weights: all layers that it fits at its lowest rate."""
    lowest: dict[str, Choice] = {}
    for choice in sorted(choices):
        if parse_scheme(choice.scheme).removes == "weights" and choice != DENSE:
            lowest.setdefault(choice.scheme, choice)
    own = (
        {layer.name: own_choices(network, layer, [choice]) for layer in network.layers} for choice in lowest.values()
    )
    return [Probe(Mapping({name: found[0] for name, found in one.items() if found}), True) for one in own]


def _shuffled(network: Network, choices: dict[str, list[Choice]], rng: np.random.Generator) -> list[Mapping]:
    """As few mappings as show every choice of layers that cost alike; short lists start again."""
    alike: dict[Key, list[str]] = {}
    for name, key in layer_keys(network).items():
        alike.setdefault(key, []).append(name)
    decks = {key: rng.permutation(len(choices[members[0]])) for key, members in alike.items()}
    count = max(-(-len(deck) // len(alike[key])) for key, deck in decks.items())
    if max(map(len, choices.values())) == 1:
        return []
    mappings: list[dict[str, Choice]] = [{} for _ in range(count)]
    for key, names in alike.items():
        deck, place = decks[key], 0
        for chosen in mappings:
            for name in names:
                chosen[name] = choices[name][deck[place % len(deck)]]
                place += 1
    return [Mapping(chosen) for chosen in mappings]


def width_probes(network: Network, rates: Sequence[float], most: int = WIDTHS) -> list[Mapping]:
    """Mappings under which layers run with fewer live input and output channels (CompactNet, section 3.1).

    Channel groups get one of three colours so that a layer's inputs and outputs differ in colour where the network
    allows it (two would do for a chain; a residual block that changes the width is a triangle). Any two colours are
    narrowed by all pairs of up to ``most`` rates, the third by what is left over (a Latin square), which gives every
    layer a grid of input and output widths at the price of two colours. Widths in between are interpolated. All colours
    are narrowest together in the last mapping.

    Args:
        network: The network.
        rates: Rates at which channels may be removed; none, no mappings.
        most: Most widths below full.
    """
    widths = [DENSE.rate, *_spread(rates, most)]
    colours, count = _colours(network), len(widths)
    square = [(first, second, (first + second) % count) for first in range(count) for second in range(count)]
    found = []
    for places in (*square, (count - 1,) * COLOURS):
        chosen = {name: Choice("filter", widths[places[colour]]) for name, colour in colours.items()}
        found.append(Mapping({name: canonical_choice(network.layer(name), c) for name, c in chosen.items()}))
    return [mapping for mapping in dict.fromkeys(found) if len(mapping)]


def _spread(rates: Sequence[float], most: int) -> list[float]:
    """At most so many of ``rates``: the largest, and those nearest to equal steps of a logarithmic scale up to it."""
    if len(rates) <= most:
        return list(rates)
    wanted = [max(rates) ** (step / most) for step in range(1, most + 1)]
    return sorted({min(rates, key=lambda rate: abs(math.log(rate / target))) for target in wanted})


def _colours(network: Network) -> dict[str, int]:
    """Producer of a removable channel group -> the group's colour, which differs from neighbours' where possible."""
    beside: list[set[int]] = [set() for _ in network.groups]
    for layer in network.layers:
        read, written = network.reads[layer.name], network.writes[layer.name]
        beside[read].add(written)
        beside[written].add(read)
    colours: dict[int, int] = {}
    for index, neighbours in enumerate(beside):
        taken = [colours[other] for other in neighbours & colours.keys()]
        colours[index] = min(range(COLOURS), key=taken.count)
    return {
        name: colours[index]
        for index, group in enumerate(network.groups)
        for name in group.producers
        if not group.fixed and misfit(network.layer(name), Choice("filter", 2.0)) is None
    }
