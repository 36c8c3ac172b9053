from __future__ import annotations

import pytest
from pydantic import ValidationError

from prunemap.envs import REWARDS, Reward

OPTIONS = {"weighted": {"weight": 0.5}, "soft": {"budget": 0.5}, "budget": {"budget": 0.5}}


def make(name: str, **options: object) -> Reward:
    return REWARDS[name](**{**OPTIONS[name], **options})


def test_every_reward_is_tested() -> None:
    assert set(OPTIONS) == set(REWARDS)


@pytest.mark.parametrize(
    ("name", "accuracy", "latency", "expected"),
    [
        ("weighted", 0.9, 0.4, 0.7),
        ("weighted", 0.0, 1.0, -0.5),
        ("soft", 0.9, 0.5, 0.9),
        ("soft", 0.8, 1.0, 0.8 * 2**-0.07),
        ("soft", 0.8, 0.25, 0.8 * 2**0.07),
        ("budget", 0.9, 0.5, 0.9),
        ("budget", 0.9, 0.6, -0.2),
        ("budget", 0.9, 5.0, -1.0),
    ],
)
def test_values(name: str, accuracy: float, latency: float, expected: float) -> None:
    assert make(name).value(accuracy, latency) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", REWARDS)
def test_more_accuracy_and_less_latency_are_never_worse(name: str) -> None:
    reward = make(name)
    for accuracy in (0.1, 0.5, 0.9):
        for latency in (0.1, 0.5, 0.51, 2.0):
            assert reward.value(accuracy + 0.05, latency) >= reward.value(accuracy, latency)
            assert reward.value(accuracy, latency - 0.05) >= reward.value(accuracy, latency)


@pytest.mark.parametrize("name", REWARDS)
def test_a_refusal_is_the_value(name: str) -> None:
    reward = make(name)
    for latency in (0.1, 0.5, 0.51, 2.0):
        refused = reward.refusal(latency)
        assert refused is None or refused == reward.value(0.9, latency)


def test_only_latencies_over_the_budget_are_refused() -> None:
    assert make("budget").refusal(0.5) is None
    assert make("budget").refusal(0.75) == -0.5


@pytest.mark.parametrize("name", REWARDS)
@pytest.mark.parametrize(("unit", "expected"), [("fraction", 0.25), ("ms", 2.0)])
def test_units(name: str, unit: str, expected: float) -> None:
    assert make(name, unit=unit).latency(2.0, dense_ms=8.0) == expected


@pytest.mark.parametrize(("unit", "expected"), [("fraction", 0.5), ("ms", 0.0625)])
def test_budget_as_a_fraction_of_dense(unit: str, expected: float) -> None:
    assert make("budget", unit=unit).budget_fraction(8.0) == make("soft", unit=unit).budget_fraction(8.0) == expected
    assert make("weighted", unit=unit).budget_fraction(8.0) == 1.0


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [("weighted", "weight", -1), ("soft", "budget", 0), ("soft", "exponent", 1), ("budget", "budget", float("nan"))],
)
def test_invalid_options(name: str, option: str, value: float) -> None:
    with pytest.raises(ValidationError, match=option):
        make(name, **{option: value})
