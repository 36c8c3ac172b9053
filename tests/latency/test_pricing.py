"""Pricing by the extension, on numbers made by hand and held against NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from prunemap.latency._pricing import (
    ChannelLayer,
    Curve,
    Effect,
    Graph,
    Kind,
    Layer,
    Left,
    Option,
    Predictor,
    Surface,
    WeightLayer,
    computed_share,
)
from prunemap.pruning import Choice, PrunemapError

CELLS = np.array([[1.0, 2.0, 0.1, 0.0], [3.0, 1.0, 0.2, 0.5], [4.0, 0.0, 0.3, 1.0]])
CURVE = Curve(CELLS)
KNOTS = [0.0, 0.25, 0.5, 1.0], [0.0, 0.5, 1.0]
VALUES = np.random.default_rng(0).random((4, 3))
CHAIN = [(0, 2, 2, Kind.layer, 0), (1, 0, 0, Kind.layer, 1)]  # value 2, the input, to layer 0, to layer 1


def test_a_curve_is_linear_in_its_cells() -> None:
    for share in np.linspace(0.0, 1.0, 41):
        assert CURVE.at(share)[0] == pytest.approx(np.interp(share, [0.0, 0.5, 1.0], CELLS[:, 0]))
    assert [CURVE.at(share)[1:] for share in (0.49, 0.5, 1.0)] == [(0.1, 0.0), (0.2, 0.5), (0.3, 1.0)]


def test_a_curve_is_not_left_at_its_ends() -> None:
    assert CURVE.at(-1.0) == CURVE.at(0.0)
    assert CURVE.at(7.0) == CURVE.at(1.0) == CURVE.at(math.nan) == (4.0, 0.3, 1.0)


def test_a_surface_is_two_interpolations() -> None:
    surface = Surface(*KNOTS, VALUES)
    for inputs, outputs in np.random.default_rng(1).uniform(-0.1, 1.1, (50, 2)):
        along = [np.interp(outputs, KNOTS[1], row) for row in VALUES]
        assert surface.at(inputs, outputs) == pytest.approx(np.interp(inputs, KNOTS[0], along))


def graph(layers: int = 2, output: int = 1, operations: list[tuple[int, int, int, Kind, int]] = CHAIN) -> Graph:
    return Graph([100] * layers, 2, output, operations, [2, 1], [])


@pytest.mark.parametrize(
    "make",
    [
        lambda: Curve(np.empty((0, 4))),
        lambda: Curve(np.ones((3, 3))),
        lambda: Surface(*KNOTS, VALUES.T[:2]),
        lambda: Surface([0.5, 0.5], [1.0], np.ones((2, 1))),
        lambda: graph(output=3),
        lambda: graph(layers=3),
        lambda: graph(operations=[*CHAIN, (3, 1, 4, Kind.addition, 1)]),
        lambda: graph(operations=[*CHAIN, (3, 1, 0, Kind.addition, 2)]),
        lambda: graph(operations=[*CHAIN, (1, 0, 0, Kind.opaque, 1)]),
        lambda: graph().shares([Effect()], set()),
        lambda: Predictor(["a"], [WeightLayer((1.0, 0.0, 0.0), CURVE)], graph(), [0], [], []),
        lambda: predictor(removable=[(0, 2, [])]),
        lambda: predictor(sharers=[[(2, CURVE)]]),
    ],
)
def test_numbers_that_do_not_fit_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"curve|surface|graph|predictor|pricer"):
        make()


WHOLE = (4.0, 0.4, 1.0)


def predictor(
    layer: Layer | None = None,
    removable: list[tuple[int, int, list[int]]] | None = None,
    sharers: list[list[tuple[int, Curve]]] | None = None,
) -> Predictor:
    """A chain of two layers alike."""
    layer = layer or WeightLayer(WHOLE, CURVE)
    return Predictor(["a", "b"], [layer, layer], graph(), [0, 1], removable or [(0, 0, [])], sharers or [])


class Prepare:
    """Makes options of a layer, and remembers for what."""

    def __init__(self, effect: Effect, curve: Curve | None, layer: Layer | None = None) -> None:
        self.asked: list[tuple[str, Choice]] = []
        self._effect, self._curve, self._layer = effect, curve, layer or WeightLayer(WHOLE, CURVE)

    def __call__(self, name: str, choice: Choice) -> Option:
        self.asked.append((name, choice))
        density = 1.0 / choice.rate
        return self._layer.option(
            choice.scheme, choice.rate, self._effect, density, 0, False, self._curve, "not measured"
        )


def test_a_choice_is_prepared_once() -> None:
    own, prepare = predictor(), Prepare(Effect(), CURVE)
    choice = Choice("simd:8", 4.0)
    assert own.layers_ms({"a": choice}.items(), prepare) == [CURVE.at(0.25)[0], 4.0]
    again = Choice("".join(["simd", ":8"]), 8.0 / 2)
    assert own.layers_ms({"b": again, "a": again}.items(), prepare) == [CURVE.at(0.25)[0]] * 2
    own.layers_ms({"a": Choice("simd:8", 5.0)}.items(), prepare)
    own.layers_ms({"a": Choice("simd:4", 4.0)}.items(), prepare)
    assert [name for name, _ in prepare.asked] == ["a", "b", "a", "a"]


def test_totals_are_sums_of_independent_layers() -> None:
    ms, error, spread, doubt = predictor().total({"a": Choice("simd:8", 2.0)}.items(), Prepare(Effect(), CURVE))
    assert (ms, error, spread) == pytest.approx((7.0, math.hypot(0.2, 0.4), 5.0))
    assert doubt == 0.0


def test_a_layer_that_may_be_dead_is_priced_by_its_chance_or_by_what_is_left() -> None:
    own = predictor(removable=[(1, 1, [])])  # layer a keeps places for the filters that it does not have
    both = {"a": Choice("filter", 10.0), "b": Choice("channel", 10.0)}.items()
    keeping, reading = Prepare(Effect(written=0.1), CURVE), Prepare(Effect(unread=0.9), CURVE)

    def prepare(name: str, choice: Choice) -> Option:
        return (keeping if name == "a" else reading)(name, choice)

    ms, error, _, doubt = own.total(both, prepare)
    nothing, tenth, rest = (
        Left(0.0, 1.0, 1.0, 1.0, False),
        Left(0.1, 1.0, 1.0, 1.0, True),
        Left(0.01, 0.01, 1.0, 0.1, True),
    )
    alive, dead = (own.total(both, prepare, [a, rest]) for a in (tenth, nothing))
    assert dead[0] < ms < alive[0]
    assert error > doubt > 0.0
    assert alive[3] == dead[3] == 0.0
    assert own.layers_ms(both, prepare, [nothing, rest])[0] == CURVE.at(0.0)[0]
    with pytest.raises(ValueError, match="every layer"):
        own.total(both, prepare, [tenth])


def test_outputs_are_computed_together() -> None:
    assert computed_share(0.6, 10, 0, 0) == 0.6
    assert computed_share(0.6, 10, 4, 0) == computed_share(0.51, 10, 4, 1) == 0.8
    assert computed_share(0.6, 10, 16, 10) == 1.0  # a vector has room for more than all


@pytest.mark.parametrize("together", [1, 4, 8, 16])
def test_of_blocks_chance_leaves_some_filters_each(together: int) -> None:
    """Held against drawing them; those of few blocks that are whole are faster one by one."""
    rng = np.random.default_rng(0)
    for stored in (0.3, 0.5, 0.9):
        left = (rng.random((20000, 8)) < stored).sum(axis=1)
        step = min(together, 8)
        drawn = (-(-left // step) * step).mean() / 8
        assert computed_share(stored, 64, together, 8) == pytest.approx(min(drawn, 1.8 * stored), abs=0.01)
    assert computed_share(1.0, 64, together, 8) == 1.0


def test_outputs_cost_what_is_computed() -> None:
    surface = Surface([0.0, 1.0], [0.0, 1.0], np.full((2, 2), 100.0))  # never faster without zeros
    layer = ChannelLayer(WHOLE, 10, 0.0, False, surface, None)

    def ms(effect: Effect, density: float, together: int) -> float:
        option = layer.option("simd:8", 1 / density, effect, density, together, False, CURVE, "")
        own = Predictor(["a", "b"], [layer, layer], graph(), [0, 1], [(1, 1, [])], [])
        reader = layer.option("channel", 2.0, Effect(unread=0.4), 0.6, 0, False, CURVE, "")
        return own.layers_ms(
            {"a": Choice("simd:8", 1 / density), "b": Choice("channel", 2.0)}.items(),
            lambda name, choice: option if name == "a" else reader,
        )[0]

    assert ms(Effect(), 0.5, 0) == pytest.approx(0.6 * CURVE.at(0.5)[0])  # six of ten outputs are stored
    assert ms(Effect(), 0.5, 4) == pytest.approx(0.8 * CURVE.at(0.5)[0])  # lists are as long
    assert ms(Effect(), 0.5, 16) == pytest.approx(CURVE.at(0.5)[0])
    assert ms(Effect(rows=2), 0.5, 4) == pytest.approx((1 - 0.4**2) * CURVE.at(0.5)[0])
    # Filters that are removed while others keep their places: of those that stay as many as are computed together.
    assert ms(Effect(written=0.5), 0.5, 0) == pytest.approx(CURVE.at(0.5 * 0.6)[0])
    assert ms(Effect(written=0.5), 0.5, 4) == pytest.approx(CURVE.at(0.8 * 0.6)[0])


@pytest.mark.parametrize(("stored", "zeros"), [(1.0, 1.0), (0.75, 0.5), (0.6, 0.2), (0.5, 0.0)])
def test_removed_filters_that_keep_their_places_cost_something(stored: float, zeros: float) -> None:
    """Between a layer that has only the filters that stay, and one that has all of them."""
    surface = Surface([0.0, 1.0], [0.0, 1.0], np.array([[0.0, 0.0], [0.0, 4.0]]))
    layer = ChannelLayer(WHOLE, 10, 0.0, False, surface, None)
    option = layer.option("filter", 2.0, Effect(written=0.5), 0.5, 0, False, CURVE, "")
    own = Predictor(["a", "b"], [layer, layer], graph(), [0, 1], [(1, 1, [])], [])
    left = [Left(0.5, 1.0, stored, 1.0, True), Left(1.0, 1.0, 1.0, 1.0, True)]
    found = own.layers_ms({"a": Choice("filter", 2.0)}.items(), lambda name, choice: option, left)[0]
    few, all_of_them = 2.0, CURVE.at(0.5)[0]
    assert found == pytest.approx(few + zeros * (all_of_them - few))


def test_inputs_cost_what_their_weights_do() -> None:
    """Whatever the curve: with half of the inputs half of what all take, beside what the outputs take alone."""
    surface = Surface([0.0, 1.0], [0.0, 1.0], np.array([[0.5, 0.5], [100.0, 100.0]]))
    layer = ChannelLayer(WHOLE, 10, 0.0, False, surface, None)
    option = layer.option("simd:8", 2.0, Effect(), 0.3, 0, False, CURVE, "")
    own = Predictor(["a", "b"], [layer, layer], graph(), [0, 1], [(1, 1, [])], [])
    left = [Left(0.3 * 0.5, 0.5, 1.0, 1.0, True), Left(1.0, 1.0, 1.0, 1.0, True)]
    chosen = {"a": Choice("simd:8", 2.0)}.items()
    found = own.layers_ms(chosen, lambda name, choice: option, left)[0]
    assert found == pytest.approx(0.5 + 0.5 * (CURVE.at(0.3)[0] - 0.5))


def test_removed_filters_do_not_arrive() -> None:
    half = {"a": Choice("filter", 2.0)}.items()
    removing = Prepare(Effect(written=0.5), None)
    assert predictor().layers_ms(half, removing) == [CURVE.at(0.5)[0]] * 2
    with pytest.raises(PrunemapError, match="not measured"):  # alone in a group that does not lose them
        predictor(removable=[(1, 1, [])]).layers_ms(half, removing)


def test_without_zeros_a_layer_is_read_off_its_surface() -> None:
    surface = Surface([0.0, 1.0], [0.0, 1.0], np.array([[1.0, 2.0], [3.0, 8.0]]))
    for staged, often in ((None, 1.0), (Surface([1.0], [1.0], np.array([[0.5]])), 0.5)):
        layer = ChannelLayer(WHOLE, 10, 0.0, False, surface, staged)
        sharers = [[(0, CURVE)], [(1, CURVE)]]
        both = predictor(layer, sharers=sharers).layers_ms(
            {"a": Choice("filter", 2.0)}.items(), Prepare(Effect(written=0.5), None, layer)
        )
        # Layer a has half of its outputs, layer b half of its inputs, and half as many to rearrange. Layer a rearranges
        # the whole image, which is the cheaper the less else was touched since the last run.
        alone = np.array([4.0 * 5.5 / 8, 4.0 * 5.0 / 8])
        assert both == pytest.approx(alone + often * np.array([CURVE.at(alone.sum() / 8)[0], 3.0]))


def test_the_first_that_needs_it_pays_for_rearranging() -> None:
    twice = [(0, 2, 2, Kind.layer, 0), (1, 2, 2, Kind.layer, 1), (3, 0, 1, Kind.addition, 0)]
    own = Predictor(
        ["a", "b"], [WeightLayer(WHOLE, CURVE)] * 2, graph(output=3, operations=twice), [0, 1], [],
        [[(0, CURVE), (1, CURVE)]],
    )  # fmt: skip
    staging = CURVE.at(1.0)[0]
    assert own.layers_ms([], Prepare(Effect(), CURVE)) == [4.0 + staging, 4.0]
    half = {"a": Choice("simd:8", 2.0)}.items()  # staged half of the time: the other half b pays
    less = CURVE.at(7 / 8)[0]
    assert own.layers_ms(half, Prepare(Effect(), CURVE)) == [3.0 + less / 2, 4.0 + less / 2]


def test_who_prepares_says_what_is_wrong() -> None:
    def refuse(name: str, choice: Choice) -> Option:
        raise PrunemapError(f"{name}: no")

    with pytest.raises(PrunemapError, match="c: no"):
        predictor().layers_ms({"c": Choice("simd:8", 2.0)}.items(), refuse)
    with pytest.raises(KeyError, match="no such layer"):
        predictor().layers_ms({"c": Choice("simd:8", 2.0)}.items(), Prepare(Effect(), CURVE))
    with pytest.raises(TypeError, match="pairs"):
        predictor().layers_ms(["a"], refuse)  # type: ignore[list-item]
