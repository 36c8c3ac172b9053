from __future__ import annotations

import copy
import json
import os
import pickle
import random
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import BaseModel, ValidationError

from prunemap.envs import DEFAULT_SPEC, REWARDS, Choices, Evaluation, Problem, ProblemSpec, spec_error
from prunemap.envs.weights import save_weights
from prunemap.latency import Profile
from prunemap.pruning import DENSE, Choice, Mapping, Network, PrunemapError

Tables = tuple[np.ndarray, np.ndarray]

MINIMAL = {
    "network": {"name": "resnet8", "options": {"width": 4}},
    "data": {"name": "digits"},
    "choices": {"schemes": ["simd:8"], "rates": [2, 4]},
}


def mapping(**choices: str) -> Mapping:
    """Layer names have no dots here: ``mapping(_0="filter@2")`` is for layer ``0``."""
    return Mapping({name.lstrip("_"): Choice.parse(text) for name, text in choices.items()})


def with_accuracy(problem: Problem, tables: Tables, accuracy: Callable[[Mapping], float]) -> Problem:
    return Problem.tabular(problem.network, problem.catalogue, accuracy, tables[1], problem.reward)


class TestChoices:
    def test_dense_is_first_and_listed_once(self, network: Network, tables: Tables) -> None:
        problem = Problem.tabular(
            network, (Choice("filter", 2), DENSE), *(t[:, :2] for t in tables), REWARDS["weighted"]()
        )
        assert problem.catalogue == (DENSE, Choice("filter", 2))

    def test_only_what_fits_is_allowed(self, tabular: Problem) -> None:
        allowed = {name: list(map(str, choices)) for name, choices in tabular.allowed.items()}
        assert allowed["0"] == ["dense", "unstructured@2", "unstructured@4", "simd:4@2", "simd:4@4", "filter@2"]
        assert allowed["2"] == ["dense", "unstructured@2", "unstructured@4"]  # depthwise

    def test_the_output_layer_keeps_its_filters(self, tabular: Problem) -> None:
        assert Choice("filter", 2) not in tabular.allowed["8"]
        with pytest.raises(PrunemapError, match="'8' may not get filter@2: its filters are the network's outputs"):
            tabular.evaluate([mapping(_8="filter@2")])

    def test_equal_choices_are_made_one(self, network: Network) -> None:
        """On the four filters of layer 4, a 1x1 convolution, simd:4, simd:8 and column are the same."""
        choices = [Choice("simd:8", 2), Choice("simd:4", 2), Choice("column", 2)]
        table = np.ones((len(network.layers), 4))
        problem = Problem.tabular(network, choices, table, table, REWARDS["weighted"]())
        assert problem.allowed["4"] == (DENSE, Choice("simd:8", 2))
        same = [Mapping({"4": choice}) for choice in choices]
        assert len({problem.evaluation_key(mapping) for mapping in same}) == 1
        assert len({problem.canonical(mapping) for mapping in same}) == 1
        assert problem.canonical(problem.canonical(same[0])) == problem.canonical(same[0])
        assert {evaluation.mapping for evaluation in problem.evaluate(same)} == {same[0]}

    def test_layers_that_stay_dense(self, tabular: Problem) -> None:
        choices = Choices(tabular.network, tabular.catalogue, frozenset({"0"}))
        assert choices.allowed["0"] == (DENSE,)
        with pytest.raises(PrunemapError, match="'0' may not get filter@2: it stays dense"):
            choices.canonical(mapping(_0="filter@2"))

    def test_an_unknown_layer_to_skip(self, tabular: Problem) -> None:
        with pytest.raises(PrunemapError, match=r"unknown layer in choices\.skip: '10'; did you mean 0"):
            Choices(tabular.network, tabular.catalogue, frozenset({"10"}))

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            (mapping(_9="filter@2"), "unknown layer '9'"),
            (mapping(_0="column@2"), "the problem's schemes are dense, unstructured, simd:4, filter"),
            (mapping(_2="simd:4@2"), "'2' may not get simd:4@2: blocks never cross convolution groups"),
        ],
    )
    def test_illegal_mappings_raise(self, tabular: Problem, wrong: Mapping, message: str) -> None:
        with pytest.raises(PrunemapError, match=message):
            tabular.evaluate([Mapping(), wrong])


class TestTabular:
    def test_optimum_is_known(self, tabular: Problem, tables: Tables) -> None:
        """Tables are additive: the best mapping takes the best entry of every layer."""
        accuracy, latency = tables
        worth = accuracy / len(accuracy) - 0.5 * latency / latency[:, 0].sum()
        columns = [[tabular.catalogue.index(choice) for choice in own] for own in tabular.allowed.values()]
        best = sum(worth[row, own].max() for row, own in enumerate(columns))
        names = list(tabular.allowed)
        mappings = [Mapping(dict(zip(names, chosen, strict=True))) for chosen in product(*tabular.allowed.values())]
        assert max(e.reward for e in tabular.evaluate(mappings)) == pytest.approx(best, abs=1e-12)

    @pytest.mark.parametrize(("rate", "nearest"), [(1.2, 2), (2.8, 2), (2.9, 4), (50, 4)])
    def test_rates_snap(self, tabular: Problem, rate: float, nearest: float) -> None:
        off, on = (Mapping({"0": Choice("unstructured", value)}) for value in (rate, nearest))
        assert tabular.evaluate([off]) == tabular.evaluate([on])
        assert tabular.evaluation_key(off) == tabular.evaluation_key(on)

    def test_wrong_shape(self, network: Network) -> None:
        with pytest.raises(PrunemapError, match=r"latency table has shape \(2, 2\), must be .* = \(4, 2\)"):
            Problem.tabular(network, [Choice("filter", 2)], np.ones((4, 2)), np.ones((2, 2)), REWARDS["weighted"]())

    def test_no_weights(self, tabular: Problem) -> None:
        with pytest.raises(PrunemapError, match="made of tables"):
            _ = tabular.model

    def test_sizes(self, tabular: Problem) -> None:
        [dense, pruned] = tabular.evaluate([Mapping(), mapping(_0="filter@2", _4="unstructured@4")])
        weights = (72, 72, 32, 40)
        positions = (64, 64, 64, 1)
        assert dense.kept_weights == sum(weights)
        assert dense.macs == sum(w * p for w, p in zip(weights, positions, strict=True))
        assert (dense.rate, dense.stored_bytes) == (1.0, 4 * sum(weights))
        # Half of layer 0's filters, with the depthwise ones and the inputs of layer 4 that they feed; then a quarter
        # of what is left of layer 4.
        kept = (36, 36, 4, 40)
        assert pruned.kept_weights == sum(kept)
        assert pruned.macs == sum(w * p for w, p in zip(kept, positions, strict=True))
        # Layer 4 stores a one-byte index for each of its 4 kept weights and 5 offsets of its 4 rows.
        assert pruned.stored_bytes == 4 * sum(kept) + 4 + 4 * 5
        assert pruned.rate == pytest.approx(sum(weights) / sum(kept))


class TestEvaluation:
    def test_round_trip(self, tabular: Problem) -> None:
        [evaluation] = tabular.evaluate([mapping(_0="filter@2")], replicate=3)
        text = json.dumps(evaluation.to_dict())
        assert Evaluation.from_dict(json.loads(text)) == evaluation
        assert evaluation.replicate == 3

    def test_wrong_fields(self, tabular: Problem) -> None:
        values = tabular.evaluate([Mapping()])[0].to_dict()
        with pytest.raises(PrunemapError, match="extra, reward"):
            Evaluation.from_dict({name: value for name, value in values.items() if name != "reward"} | {"extra": 1})

    def test_a_failure_is_an_evaluation(self, tabular: Problem, tables: Tables) -> None:
        def broken(mapping: Mapping) -> float:
            raise ZeroDivisionError("no luck")

        [failed] = with_accuracy(tabular, tables, broken).evaluate([mapping(_0="filter@2")])
        assert failed.accuracy is None
        assert failed.failed == "ZeroDivisionError: no luck"
        assert failed.reward == -0.5 * failed.latency_fraction
        assert Evaluation.from_dict(failed.to_dict()) == failed

    def test_an_accuracy_that_is_not_a_number(self, tabular: Problem, tables: Tables) -> None:
        [failed] = with_accuracy(tabular, tables, lambda mapping: float("nan")).evaluate([Mapping()])
        assert (failed.accuracy, failed.failed) == (None, "the accuracy is nan")

    def test_over_budget_is_not_trained(self, tabular: Problem, tables: Tables) -> None:
        asked: list[Mapping] = []
        reward = REWARDS["budget"](budget=0.9)
        accuracy = lambda mapping: asked.append(mapping) or 0.75  # noqa: E731
        problem = Problem.tabular(tabular.network, tabular.catalogue, accuracy, tables[1], reward)
        fast = Mapping(dict.fromkeys(problem.allowed, problem.catalogue[1]))
        [over, under] = problem.evaluate([Mapping(), fast])
        assert under.latency_fraction < 0.9 < over.latency_fraction == 1.0
        assert (over.accuracy, over.failed, over.epochs) == (None, None, 0)
        assert over.reward == 1.0 - 1.0 / 0.9
        assert under.reward == under.accuracy == 0.75
        assert asked == [under.mapping]

    def test_keys(self, tabular: Problem, tables: Tables) -> None:
        pruned = mapping(_0="filter@2")
        other_latency = Problem.tabular(tabular.network, tabular.catalogue, tables[0], 2 * tables[1], tabular.reward)
        other_reward = Problem.tabular(tabular.network, tabular.catalogue, *tables, REWARDS["soft"](budget=1.0))
        keys = [
            tabular.evaluation_key(pruned),
            tabular.evaluation_key(Mapping()),
            tabular.evaluation_key(pruned, replicate=1),
            other_latency.evaluation_key(pruned),
            other_reward.evaluation_key(pruned),
        ]
        assert len(set(keys)) == len(keys)
        assert tabular.accuracy_key(pruned) == other_latency.accuracy_key(pruned) == other_reward.accuracy_key(pruned)
        assert tabular.evaluate([pruned])[0].key == keys[0]

    def test_a_copy_is_the_problem_itself(self, tabular: Problem) -> None:
        assert copy.deepcopy(tabular) is tabular

    def test_a_problem_travels(self, tabular: Problem) -> None:
        """Ray sends problems to workers."""
        there = pickle.loads(pickle.dumps(tabular))
        pruned = [mapping(_0="filter@2")]
        assert there.evaluate(pruned) == tabular.evaluate(pruned)


class TestSpec:
    def test_catalogue(self) -> None:
        spec = ProblemSpec.from_dict(MINIMAL)
        assert list(map(str, spec.choices.catalogue())) == ["dense", "simd:8@2", "simd:8@4"]

    def test_round_trip(self) -> None:
        spec = ProblemSpec.from_dict(MINIMAL)
        assert ProblemSpec.from_dict(json.loads(spec.model_dump_json())) == spec

    @pytest.mark.parametrize(
        ("path", "value", "message"),
        [
            ("choices.rates", [2, 0.5], "problem.choices.rates[1]: must be >= 1, got 0.5"),
            ("choices.rates", [2, 2], "problem.choices.rates: listed twice: 2.0"),
            ("choices.schemes", ["smid:8"], "problem.choices.schemes: unknown scheme 'smid'; did you mean simd?"),
            ("choices.schemas", [], "problem.choices.schemas: unknown key; did you mean schemes?"),
            ("network.name", "resnt8", "problem.network.name: unknown network 'resnt8'; did you mean resnet8"),
            ("data.name", "digit", "problem.data.name: unknown dataset 'digit'; did you mean digits?"),
            ("reward.kind", "weihgted", "problem.reward: unknown reward 'weihgted'; did you mean weighted?"),
            ("reward.options", {"wieght": 1}, "problem.reward: options.wieght: unknown key; did you mean weight?"),
            ("recipe.fast_epochs", 0, "problem.recipe.fast_epochs: must be >= 1, got 0"),
            ("latency.threads", "two", "problem.latency.threads: must be a valid integer"),
            ("sede", 1, "problem.sede: unknown key; did you mean seed?"),
            ("network", {}, "problem.network.name: is missing"),
        ],
    )
    def test_errors_are_one_line_with_the_path(self, path: str, value: object, message: str) -> None:
        data = copy.deepcopy(MINIMAL)
        *parents, key = path.split(".")
        part = data
        for parent in parents:
            part = part.setdefault(parent, {})
        part[key] = value
        with pytest.raises(PrunemapError) as caught:
            ProblemSpec.from_dict(data)
        assert str(caught.value).startswith(message)
        assert "\n" not in str(caught.value)

    def test_every_wrong_key_is_told(self) -> None:
        with pytest.raises(PrunemapError, match=r"problem\.network: is missing; problem\.sede: unknown"):
            ProblemSpec.from_dict({"sede": 1} | {key: MINIMAL[key] for key in ("data", "choices")})

    def test_keys_inside_lists_and_options(self) -> None:
        """The search's own configuration holds the problem beside lists and optional parts."""

        class Item(BaseModel, extra="forbid"):
            name: str = ""

        class Whole(BaseModel, extra="forbid"):
            problem: ProblemSpec | None = None
            items: tuple[Item, ...] = ()
            table: dict[str, Item] = {}

        wrong = {
            "problem": MINIMAL | {"sede": 1},
            "items": [{}, {"nmae": ""}],
            "table": {"a": {"naem": ""}},
        }
        with pytest.raises(ValidationError) as caught:
            Whole.model_validate(wrong)
        assert str(spec_error(caught.value, Whole)).split("; ") == [
            "problem.sede: unknown key",
            "did you mean seed?",
            "items[1].nmae: unknown key",
            "did you mean name?",
            "table.a.naem: unknown key",
        ]

    def test_defaults_are_valid(self) -> None:
        assert ProblemSpec.from_dict(DEFAULT_SPEC.model_dump()) == DEFAULT_SPEC


def some_mapping(problem: Problem, seed: int) -> Mapping:
    rng = np.random.default_rng(seed)
    return Mapping({name: choices[rng.integers(len(choices))] for name, choices in problem.allowed.items()})


def random_states() -> list[object]:
    return [random.getstate(), repr(np.random.get_state()), torch.get_rng_state().tolist()]  # noqa: NPY002


ELSEWHERE = """
import json, sys, torch
from prunemap.envs import Problem, ProblemSpec
from prunemap.pruning import Mapping

torch.set_num_threads(2)
torch.manual_seed(1)
problem = Problem.from_spec(ProblemSpec.from_dict(json.loads(sys.argv[1])))
torch.rand(10)
evaluations = problem.evaluate([Mapping.from_json(text) for text in sys.argv[2:]], replicate=1)
print(json.dumps([evaluation.to_dict() for evaluation in evaluations]))
"""


class TestReal:
    def test_bit_equal_in_another_process(self, real: Problem, spec: ProblemSpec) -> None:
        """Other threads, hash seed, global seed, and order of evaluation: the same bits, and the same keys."""
        mappings = [some_mapping(real, seed) for seed in range(3)]
        here = real.evaluate(mappings, replicate=1)
        command = [sys.executable, "-c", ELSEWHERE, spec.model_dump_json(), *(m.to_json() for m in reversed(mappings))]
        environment = os.environ | {"PYTHONHASHSEED": "7"}
        there = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        assert [Evaluation.from_dict(values) for values in json.loads(there.stdout)] == here[::-1]
        assert not any(evaluation.failed for evaluation in here)

    def test_random_states_are_left_alone(self, real: Problem) -> None:
        threads, before = torch.get_num_threads(), random_states()
        real.evaluate([some_mapping(real, 0)])
        assert random_states() == before
        assert torch.get_num_threads() == threads

    def test_replicates_differ(self, real: Problem) -> None:
        """Another replicate is another training; everything that is counted or predicted stays."""
        tries = [real.evaluate([some_mapping(real, 1)], replicate)[0] for replicate in range(4)]
        assert len({evaluation.accuracy for evaluation in tries}) > 1
        assert len({(e.latency_ms, e.macs, e.rate, e.mapping) for e in tries}) == 1

    def test_equal_mappings_are_equal_evaluations(self, real: Problem) -> None:
        """On a layer of four filters, simd:4 is column: the same mask, seed and key."""
        written, canonical = Mapping({"conv1": Choice("simd:4", 2)}), Mapping({"conv1": Choice("column", 2)})
        assert real.canonical(written) == canonical
        first, second = real.evaluate([written]), real.evaluate([canonical])
        assert first == second
        assert first[0].mapping == written

    def test_dense(self, real: Problem) -> None:
        [dense] = real.evaluate([Mapping()])
        assert (dense.latency_fraction, dense.rate) == (1.0, 1.0)
        assert dense.latency_ms == real.dense_ms == real.predict(Mapping()).ms
        assert dense.epochs == real.recipe.fast_epochs
        assert dense.accuracy is not None
        assert dense.reward == dense.accuracy - 0.5
        assert dense.accuracy > 0.5
        assert real.dense_accuracy > 0.5

    def test_rates_off_the_grid_are_legal(self, real: Problem) -> None:
        between = Mapping({"layer2.0.conv2": Choice("unstructured", 3)})
        [evaluation] = real.evaluate([between])
        assert evaluation.mapping == between
        assert evaluation.failed is None

    def test_the_network_gets_what_the_data_needs(self, real: Problem) -> None:
        assert real.network.input_shape == (1, 8, 8)
        assert real.network.layers[-1].out_channels == real.data.classes

    def test_given_weights(self, real: Problem, spec: ProblemSpec, tmp_path: Path) -> None:
        """Weights from a file make the same problem as those that were trained here."""
        path = tmp_path / "dense.safetensors"
        save_weights(real.model, path)
        given = Problem.from_spec(
            spec.model_copy(update={"network": spec.network.model_copy(update={"weights": str(path)})}),
            profile=real.profile if isinstance(real.profile, Profile) else None,
        )
        assert given.dense_accuracy == real.dense_accuracy
        assert given.evaluation_key(Mapping()) == real.evaluation_key(Mapping())

    def test_a_profile_file(self, real: Problem, spec: ProblemSpec, tmp_path: Path) -> None:
        assert isinstance(real.profile, Profile)
        real.profile.save(tmp_path / "here.parquet")
        latency = spec.latency.model_copy(update={"profile": str(tmp_path / "here.parquet")})
        loaded = Problem.from_spec(spec.model_copy(update={"latency": latency}))
        assert loaded.evaluation_key(some_mapping(real, 0)) == real.evaluation_key(some_mapping(real, 0))

    @pytest.mark.parametrize(
        ("part", "values", "message"),
        [
            ("choices", {"schemes": ["block-punched:2x2"]}, "the profile holds no block-punched:2x2"),
            ("choices", {"skip": ["conv2"]}, "unknown layer in choices.skip: 'conv2'; did you mean conv1"),
            ("latency", {"threads": 2}, "problem.latency.threads is 2, but the profile was measured with 1"),
            ("network", {"options": {"width": 6}}, "this profile is of another network"),
            ("network", {"options": {"depth": 6}}, "unknown option of network resnet8: 'depth'"),
            ("data", {"options": {"rezise": 6}}, "unknown option of dataset digits: 'rezise'; did you mean resize"),
        ],
    )
    def test_what_does_not_fit(
        self, real: Problem, spec: ProblemSpec, part: str, values: dict[str, object], message: str
    ) -> None:
        plain = spec.model_dump()
        plain[part] |= values
        assert isinstance(real.profile, Profile)
        with pytest.raises(PrunemapError, match=message):
            Problem.from_spec(ProblemSpec.from_dict(plain), profile=real.profile)

    def test_progress_is_told(self, spec: ProblemSpec, real: Problem) -> None:
        told: list[tuple[int, int, str]] = []
        assert isinstance(real.profile, Profile)
        fresh = spec.model_copy(update={"seed": 1})
        Problem.from_spec(fresh, profile=real.profile, progress=lambda *step: told.append(step))
        assert told == [(epoch, 3, "training the dense network") for epoch in (1, 2, 3)]
