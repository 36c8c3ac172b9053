from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import gymnasium
import numpy as np
import pytest
import stable_baselines3.common.env_checker as sb3_checker
from gymnasium.utils.env_checker import check_env, data_equivalence

from prunemap.envs import DEFAULT_SPEC, REWARDS, Choices, MappingEnv, Problem, ProblemSpec
from prunemap.envs.actions import ACTIONS
from prunemap.envs.observation import OBSERVATIONS
from prunemap.kernels import CompiledNetwork, compile_network
from prunemap.pruning import DENSE, Choice, Mapping, PrunemapError

OPTIONS = [{"observation": seen, "action": action} for seen in OBSERVATIONS for action in ACTIONS]
IDS = ["-".join(options.values()) for options in OPTIONS]


def play(env: gymnasium.Env[Any, Any], seed: int) -> list[Any]:
    """A whole episode of random actions, illegal ones among them."""
    env.action_space.seed(seed)
    record: list[Any] = [env.reset(seed=seed)]
    while len(record) == 1 or not record[-1][2]:
        record.append(env.step(env.action_space.sample()))
    return record


@pytest.fixture
def env(tabular: Problem) -> MappingEnv:
    return MappingEnv(tabular)


@pytest.mark.parametrize("options", OPTIONS, ids=IDS)
class TestApi:
    def test_checkers(self, tabular: Problem, options: dict[str, str]) -> None:
        made = gymnasium.make("prunemap/Mapping-v0", problem=tabular, **options)
        check_env(made.unwrapped)
        sb3_checker.check_env(made.unwrapped)

    def test_two_episodes_are_equal_to_the_bit(self, tabular: Problem, options: dict[str, str]) -> None:
        first, second = (MappingEnv(tabular, **options) for _ in range(2))
        for seed in range(5):
            assert data_equivalence(play(first, seed), play(second, seed), exact=True)

    def test_observations_are_in_range_and_new(self, tabular: Problem, options: dict[str, str]) -> None:
        env = MappingEnv(tabular, **options)
        observations = [step[0] for step in play(env, 0)]
        assert all(observation in env.observation_space for observation in observations)
        assert all(np.isfinite(observation).all() for observation in observations)

    def test_masks_say_what_is_legal(self, tabular: Problem, options: dict[str, str]) -> None:
        """Per layer and every action: legal exactly when its masks are set (for two parts: only when)."""
        env = MappingEnv(tabular, **options)
        space = env.action_space
        actions = (
            [np.int64(i) for i in range(space.n)]
            if isinstance(space, gymnasium.spaces.Discrete)
            else [np.array(pair) for pair in np.ndindex(*space.nvec)]
        )
        for layer in range(len(env.layers)):
            for action in actions:
                env.reset()
                for _ in range(layer):
                    env.decide(actions[0])
                masks = env.action_masks()
                illegal = env.decide(action)[1]["illegal"]
                if options["action"] == "flat":
                    assert illegal != masks[action]
                else:
                    legal = masks[action[0]] and masks[space.nvec[0] + action[1]]
                    assert legal or illegal


class TestEpisode:
    def test_one_step_per_layer_with_a_choice(self, tabular: Problem) -> None:
        skipping = Choices(tabular.network, tabular.catalogue, frozenset({"2"}), snap=True)
        problem = Problem(skipping, tabular.profile, tabular.accuracy, tabular.reward)
        env = MappingEnv(problem)
        assert [layer.name for layer in env.layers] == ["0", "4", "8"]
        assert len(play(env, 0)) == 1 + 3

    def test_the_reward_comes_last_with_the_evaluation(self, env: MappingEnv, tabular: Problem) -> None:
        env.reset()
        chosen = {}
        for layer in env.layers:
            choice = tabular.allowed[layer.name][-1]
            chosen[layer.name] = choice
            _, reward, terminated, truncated, info = env.step(tabular.catalogue.index(choice))
            assert not truncated
            assert terminated == (layer is env.layers[-1])
            assert terminated or (reward, info) == (0.0, {"illegal": False})
        [expected] = tabular.evaluate([Mapping(chosen)])
        assert reward == expected.reward
        assert info["evaluation"] == {name: v for name, v in expected.to_dict().items() if name != "seconds"}

    def test_an_illegal_action_acts_as_dense(self, env: MappingEnv, tabular: Problem) -> None:
        env.reset()
        env.step(0)
        assert env.layers[1].kind == "depthwise"
        _, _, _, _, info = env.step(tabular.catalogue.index(Choice("filter", 2)))
        assert info == {"illegal": True}
        assert env.mapping == Mapping()

    def test_a_step_after_the_end(self, env: MappingEnv) -> None:
        play(env, 0)
        assert env.action_masks().tolist() == [True] + [False] * 5
        with pytest.raises(PrunemapError, match="call reset"):
            env.step(0)

    def test_full_observation(self, env: MappingEnv, tabular: Problem) -> None:
        first, _ = env.reset()
        second, *_ = env.step(3)  # simd:4 at rate 2
        schemes = len(tabular.choices.schemes)
        share = env.layers[0].macs / tabular.network.macs
        assert first[0] == 0
        assert first[1:4].tolist() == [1, 0, 0]
        assert first[8] == pytest.approx(share)
        assert first[-3 - schemes : -3].tolist() == [1, 0, 0, 0]
        assert first[-3:].tolist() == [1.0, 0.5, 0.5]
        assert second[0] == 0.25
        assert second[1:4].tolist() == [0, 1, 0]
        assert second[-3 - schemes : -3].tolist() == [0, 0, 1, 0]
        latency = tabular.predict(Mapping({"0": Choice("simd:4", 2)})).ms / tabular.dense_ms
        assert second[-3:].tolist() == pytest.approx([0.5, latency / 2, 0.5])

    def test_paper_observation(self, tabular: Problem) -> None:
        env = MappingEnv(tabular, observation="paper")
        steps = [step[0] for step in play(env, 0)]
        assert [float(step[0]) for step in steps[:-1]] == [0.0, 0.5, 0.0, 1.0]
        assert [round(float(step[1]) * 11) for step in steps[:-1]] == [3, 3, 1, 1]
        assert not steps[-1].any()

    def test_two_part_actions_name_every_choice(self, tabular: Problem) -> None:
        env = MappingEnv(tabular, action="two-part")
        assert env.action_space.nvec.tolist() == [4, 2]
        named = {env._actions.choice(pair) for pair in np.ndindex(4, 2)}
        assert named == set(tabular.catalogue)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"observation": "ful"}, "unknown observation 'ful'; did you mean full"),
            ({"action": "flta"}, "unknown action 'flta'; did you mean flat"),
            ({"spec": DEFAULT_SPEC}, "a problem or a spec, not both"),
            ({"live": True}, "made of tables"),
        ],
    )
    def test_wrong_arguments(self, tabular: Problem, options: dict[str, Any], message: str) -> None:
        with pytest.raises(PrunemapError, match=message):
            MappingEnv(tabular, **options)

    def test_nothing_to_choose(self, tabular: Problem) -> None:
        problem = Problem(Choices(tabular.network, (DENSE,)), tabular.profile, tabular.accuracy, tabular.reward)
        with pytest.raises(PrunemapError, match="no layer may get anything but dense"):
            MappingEnv(problem)

    def test_the_budget_is_seen(self, tabular: Problem) -> None:
        problem = Problem(tabular.choices, tabular.profile, tabular.accuracy, REWARDS["budget"](budget=0.4))
        observation, _ = MappingEnv(problem).reset()
        assert observation[-1] == pytest.approx(0.2)


def test_live_kernels_are_chosen_where_they_are_measured(real: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    cpus: list[int] = []

    def compiling(*args: Any) -> CompiledNetwork:
        cpus.append(len(os.sched_getaffinity(0)))
        return compile_network(*args)

    monkeypatch.setattr("prunemap.envs.live.compile_network", compiling)
    play(gymnasium.make("prunemap/MappingLive-v0", problem=real), 3)
    assert cpus == [1, 1]


@pytest.mark.parametrize("name", ["prunemap/Mapping-v0", "prunemap/MappingLive-v0"])
class TestIds:
    def test_checkers_on_a_real_problem(self, real: Problem, name: str) -> None:
        made = gymnasium.make(name, problem=real)
        assert made.spec is not None
        assert made.spec.nondeterministic == ("Live" in name)
        check_env(made.unwrapped)
        sb3_checker.check_env(made.unwrapped)

    def test_a_real_episode(self, real: Problem, name: str) -> None:
        """Prediction or measurement: accuracy and mapping are the same bits, latency is where it came from."""
        made = gymnasium.make(name, problem=real)
        record = play(made, 3)
        evaluation = record[-1][4]["evaluation"]
        [predicted] = real.evaluate([made.unwrapped.mapping])
        assert evaluation["accuracy"] == predicted.accuracy
        assert evaluation["key"] == predicted.key
        assert (evaluation["latency_ms"] == predicted.latency_ms) == ("Live" not in name)
        assert record[-1][1] == evaluation["reward"]
        assert evaluation["reward"] == pytest.approx(evaluation["accuracy"] - 0.5 * evaluation["latency_fraction"])

    def test_made_with_nothing_imported_first(self, name: str) -> None:
        code = f"import gymnasium; env = gymnasium.make('prunemap:{name}'); env.reset(); env.step(0)"
        subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_what_the_budget_refuses_is_not_measured(real: Problem) -> None:
    problem = Problem(real.choices, real.profile, real.accuracy, REWARDS["budget"](budget=0.01), real.spec)
    [*_, last] = play(MappingEnv(problem, live=True), 0)
    assert last[1] == -1.0
    assert last[4]["evaluation"]["accuracy"] is None


def test_a_plain_spec(spec: ProblemSpec, real: Problem) -> None:
    env = gymnasium.make("prunemap/Mapping-v0", spec=spec.model_dump())
    assert data_equivalence(play(env.unwrapped, 0), play(MappingEnv(real), 0), exact=True)
