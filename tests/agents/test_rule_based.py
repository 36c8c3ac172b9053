"""The rules of figure 8 on profiles made by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from prunemap.agents import LocalTools
from prunemap.agents.rule_based import RuleBased
from prunemap.envs import REWARDS, Problem
from prunemap.pruning import DENSE, Choice, Mapping, Network, capture

Search = Callable[..., LocalTools]

SCHEMES = (
    "unstructured",
    "simd:4",
    "block-punched:4x4",
    "block-punched:8x4",
    "block-row:4x4",
    "block-column:8x4",
    "filter",
    "pattern:4",
    "pattern:8",
)
CHOICES = tuple(Choice(scheme, rate) for scheme in SCHEMES for rate in (2.0, 4.0))
CATALOGUE = (DENSE, *CHOICES)
THREE, DEPTHWISE, ONE, HIDDEN, OUTPUT = "0", "2", "4", "8", "10"


@pytest.fixture(scope="module")
def network() -> Network:
    model = nn.Sequential(
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1, groups=16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 1),
        nn.ReLU(),
        nn.MaxPool2d(4),
        nn.Flatten(),
        nn.Linear(64, 32),
        nn.ReLU(),
        nn.Linear(32, 10),
    )
    return capture(model, torch.zeros(1, 8, 8, 8))


def problem(network: Network, accuracy: float, choices: tuple[Choice, ...] = CHOICES, **ms: float) -> Problem:
    """A problem whose layers all take ``ms[scheme]`` (by name, without - and :); what is not named takes 100 ms.

    At rate 2 everything takes twice as long as at rate 4.
    """
    catalogue = (DENSE, *choices)
    plain = [choice.scheme.translate({ord(sign): None for sign in "-:"}) for choice in catalogue]
    assert set(ms) <= set(plain)
    row = [
        ms.get(name, 100.0) * (2.0 if choice.rate == 2.0 else 1.0)
        for name, choice in zip(plain, catalogue, strict=True)
    ]
    tables = np.full((len(network.layers), len(catalogue)), accuracy), np.tile(row, (len(network.layers), 1))
    return Problem.tabular(network, choices, *tables, reward=REWARDS["weighted"]())


def at(scheme: str, rate: float = 4.0) -> Choice:
    return Choice(scheme, rate)


EASY, BETWEEN, HARD = 0.9, 0.85, 0.79


@pytest.mark.parametrize(
    ("ms", "expected"),
    [
        # The limit is (1 + 0.2) x 10 ms; the finest that is within is taken, not the fastest.
        ({"unstructured": 11.9, "simd4": 11.0, "blockpunched4x4": 10.5, "blockpunched8x4": 10.0}, "unstructured"),
        ({"unstructured": 12.1, "simd4": 11.0, "blockpunched4x4": 10.5, "blockpunched8x4": 10.0}, "simd:4"),
        ({"unstructured": 30.0, "simd4": 20.0, "blockpunched4x4": 11.9, "blockpunched8x4": 10.0}, "block-punched:4x4"),
        ({"unstructured": 30.0, "simd4": 20.0, "blockpunched4x4": 13.0, "blockpunched8x4": 11.0}, "block-punched:8x4"),
        ({"unstructured": 30.0, "simd4": 20.0, "blockpunched4x4": 13.0, "blockpunched8x4": 13.0}, "filter"),
    ],
)
def test_the_finest_block_within_beta(network: Network, ms: dict[str, float], expected: str) -> None:
    mapping = RuleBased().mapping(problem(network, EASY, filter=10.0, **ms), 4.0)
    assert mapping[THREE] == mapping[ONE] == at(expected)


def test_beta_is_an_option(network: Network) -> None:
    made = problem(network, EASY, filter=10.0, unstructured=14.9, simd4=11.0)
    assert RuleBased(beta=0.5).mapping(made, 4.0)[ONE] == at("unstructured")
    assert RuleBased(beta=0.48).mapping(made, 4.0)[ONE] == at("simd:4")
    assert RuleBased(beta=0.0).mapping(made, 4.0)[ONE] == at("filter")


@pytest.mark.parametrize(
    ("accuracy", "pattern", "expected"),
    [
        (1.0, 1.0, "simd:4"),
        (EASY, 1.0, "simd:4"),
        (BETWEEN, 10.9, "pattern:8"),
        (BETWEEN, 11.0, "simd:4"),
        (0.8, 11.1, "simd:4"),
        (HARD, 50.0, "pattern:8"),
        (0.1, 50.0, "pattern:8"),
    ],
)
def test_difficulty_decides_on_3x3_layers(network: Network, accuracy: float, pattern: float, expected: str) -> None:
    made = problem(network, accuracy, filter=10.0, simd4=11.0, pattern8=pattern)
    mapping = RuleBased().mapping(made, 4.0)
    assert mapping[THREE] == at(expected)
    assert mapping[ONE] == at("simd:4")


def test_the_faster_pattern(network: Network) -> None:
    assert RuleBased().mapping(problem(network, HARD, pattern4=3.0, pattern8=4.0), 4.0)[THREE] == at("pattern:4")


def test_thresholds_of_difficulty_are_options(network: Network) -> None:
    made = problem(network, 0.6, filter=10.0, simd4=11.0, pattern8=50.0)
    assert RuleBased(easy=0.6).mapping(made, 4.0)[THREE] == at("simd:4")
    assert RuleBased(hard=0.6).mapping(made, 4.0)[THREE] == at("simd:4")
    assert RuleBased().mapping(made, 4.0)[THREE] == at("pattern:8")


@pytest.mark.parametrize("accuracy", [EASY, BETWEEN, HARD])
def test_depthwise_layers_stay_dense(network: Network, accuracy: float) -> None:
    made = problem(network, accuracy, unstructured=1.0, pattern8=1.0)
    assert RuleBased().mapping(made, 4.0)[DEPTHWISE] == DENSE


@pytest.mark.parametrize("accuracy", [BETWEEN, HARD])
def test_without_patterns_the_block_is_taken(network: Network, accuracy: float) -> None:
    choices = tuple(choice for choice in CHOICES if not choice.scheme.startswith("pattern"))
    made = problem(network, accuracy, choices, filter=10.0, simd4=11.0)
    assert RuleBased().mapping(made, 4.0)[THREE] == at("simd:4")


def test_without_a_finer_block_that_is_fast_enough(network: Network) -> None:
    """The largest block is the whole tensor: structured pruning. A pattern is chosen in its own right."""
    for accuracy, expected in ((EASY, at("filter")), (BETWEEN, at("filter")), (HARD, at("pattern:8"))):
        made = problem(network, accuracy, filter=10.0, pattern8=90.0)
        assert RuleBased().mapping(made, 4.0)[THREE] == expected
        assert RuleBased().mapping(made, 4.0)[ONE] == at("filter")


def test_linear_layers_get_blocks_by_their_size(network: Network) -> None:
    """A block-row:4x4 is a block of 16, smaller than a block-column:8x4, whatever their units."""
    made = problem(network, EASY, filter=10.0, blockrow4x4=11.9, blockcolumn8x4=10.0)
    assert RuleBased().mapping(made, 4.0)[HIDDEN] == at("block-row:4x4")
    made = problem(network, EASY, filter=10.0, blockrow4x4=12.1, blockcolumn8x4=11.0)
    assert RuleBased().mapping(made, 4.0)[HIDDEN] == at("block-column:8x4")


def test_layers_that_keep_their_filters_compare_with_the_coarsest_block(network: Network) -> None:
    """The last layer's filters are the network's outputs: `filter`, however fast, is not for it."""
    made = problem(network, EASY, filter=1.0, blockcolumn8x4=10.0, blockrow4x4=11.9, unstructured=13.0)
    mapping = RuleBased().mapping(made, 4.0)
    assert mapping[OUTPUT] == at("block-row:4x4")
    assert mapping[HIDDEN] == at("filter")


def test_problems_without_filter(network: Network) -> None:
    choices = (at("unstructured"), at("simd:4"), at("block-punched:8x4"))
    made = problem(network, EASY, choices, blockpunched8x4=10.0, simd4=11.0, unstructured=13.0)
    assert RuleBased().mapping(made, 4.0)[THREE] == at("simd:4")
    only = problem(network, EASY, (at("filter"),), filter=1.0)
    mapping = RuleBased().mapping(only, 4.0)
    assert mapping == Mapping({name: at("filter") for name in (THREE, ONE, HIDDEN)})


def test_rates(network: Network, search: Search) -> None:
    made = problem(network, EASY, filter=10.0, simd4=11.0)
    by_rate = {rate: RuleBased().mapping(made, rate) for rate in (2.0, 4.0)}
    assert by_rate[2.0][THREE] == at("simd:4", 2.0)

    def asked(**options: object) -> list[str]:
        return [evaluation.key for evaluation in search(made, "rule-based", **options).asked]

    keys = {rate: made.evaluation_key(mapping) for rate, mapping in by_rate.items()}
    assert asked() == [keys[4.0]]
    assert asked(rate=2.0) == [keys[2.0]]
    assert asked(rate=[4.0, 2.0]) == [keys[4.0], keys[2.0]]
    assert asked(rate=None) == [keys[2.0], keys[4.0]]
    assert asked(rate=[5.0, 4.0]) == [keys[4.0]], "moved to the nearest rate on offer, asked once"
