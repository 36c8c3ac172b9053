from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunemap.pruning import DENSE, Choice, Mapping, PrunemapError

SCHEMES = st.sampled_from(["dense", "unstructured", "filter", "simd:8", "block-punched:8x4", "pattern:8"])
MAPPINGS = st.dictionaries(st.text(), st.builds(Choice, SCHEMES, st.floats(1, 1e6))).map(Mapping)


@given(MAPPINGS)
def test_json_round_trip(mapping: Mapping) -> None:
    again = Mapping.from_json(mapping.to_json())
    assert again == mapping
    assert hash(again) == hash(mapping)
    assert again.digest() == mapping.digest()


def test_order_and_dense_layers_do_not_matter() -> None:
    first = Mapping({"b": Choice("simd:8", 4), "a": Choice("filter", 2), "c": DENSE})
    second = Mapping({"a": Choice("filter", 2.0), "b": Choice("simd:8", 4.0)})
    assert first == second
    assert first.to_json() == second.to_json()
    assert list(first) == ["a", "b"]
    assert first["c"] == first["unheard of"] == DENSE
    assert "c" not in first
    assert json.loads(first.to_json())["b"] == {"scheme": "simd:8", "rate": 4.0}


@given(st.builds(Choice, SCHEMES, st.integers(1, 1000).map(float)))
def test_choice_text_round_trip(choice: Choice) -> None:
    assert Choice.parse(str(choice)) == choice


@pytest.mark.parametrize("rate", [0.99, 0, -4, math.nan, math.inf, 10**400, "four", None])
def test_rates_below_one_or_not_finite_are_refused(rate: object) -> None:
    with pytest.raises(PrunemapError, match=">= 1"):
        Choice("simd:8", rate)  # type: ignore[arg-type]


def test_the_rate_of_dense_is_one() -> None:
    assert Choice("dense", 4.0) == DENSE


@pytest.mark.parametrize("text", ["simd:8@", "simd:8@four", "simd:8@0.5", "simd@4", "@4"])
def test_malformed_choices(text: str) -> None:
    with pytest.raises(PrunemapError):
        Choice.parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "expected"),
        ('{"conv1": "simd:8"}', "layer 'conv1'"),
        ('{"conv1": {"rate": 4}}', "layer 'conv1'"),
        ('{"conv1": {"scheme": "simd:8", "rate": "4"}}', "not a number"),
        ('{"conv1": {"scheme": "simd:8", "rate": true}}', "not a number"),
        ('{"conv1": {"scheme": "simd:8", "rat": 4}}', "layer 'conv1'"),
        ('{"conv1": {"scheme": "simdd:8", "rate": 4}}', "layer 'conv1'.*did you mean simd"),
        ('{"conv1": {"scheme": "simd:8", "rate": 0.5}}', "layer 'conv1'.*>= 1"),
        ('{"conv1": {"scheme": "simd:8", "rate": NaN}}', "layer 'conv1'.*>= 1"),
    ],
)
def test_broken_json(text: str, message: str) -> None:
    with pytest.raises(PrunemapError, match=message):
        Mapping.from_json(text)
