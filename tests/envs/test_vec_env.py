from __future__ import annotations

import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

from prunemap.envs import Evaluation, MappingEnv, MappingVecEnv, Problem
from prunemap.pruning import Mapping

K = 3


@pytest.mark.parametrize("action", ["flat", "two-part"])
def test_equals_single_environments(tabular: Problem, action: str) -> None:
    ours = MappingVecEnv(tabular, K, action=action)
    theirs = DummyVecEnv([lambda: MappingEnv(tabular, action=action)] * K)
    ours.action_space.seed(0)
    assert data_equivalence(ours.reset(), theirs.reset(), exact=True)
    for _ in range(2 * len(ours.envs[0].layers) + 1):
        actions = np.stack([ours.action_space.sample() for _ in range(K)])
        for mine, expected in zip(ours.step(actions), theirs.step(actions), strict=True):
            assert data_equivalence(mine, expected, exact=True)
        assert ours.reset_infos == theirs.reset_infos


def test_finished_mappings_are_one_batch(tabular: Problem) -> None:
    batches: list[list[Mapping]] = []

    def evaluate(mappings: list[Mapping]) -> list[Evaluation]:
        batches.append(mappings)
        return tabular.evaluate(mappings)

    env = MappingVecEnv(tabular, K, evaluate)
    env.reset()
    for step in range(1, 9):
        _, rewards, dones, infos = env.step(np.arange(K))
        assert dones.all() == dones.any() == (step % 4 == 0)
        assert len(batches) == step // 4
        assert dones.any() or not rewards.any()
    assert batches[0] == batches[1]
    assert rewards.tolist() == [np.float32(e.reward) for e in tabular.evaluate(batches[0])]
    assert [info["evaluation"]["reward"] for info in infos] == [e.reward for e in tabular.evaluate(batches[0])]
    assert all(info["terminal_observation"].shape == env.observation_space.shape for info in infos)


def test_a_spent_budget_passes_through(tabular: Problem) -> None:
    class Spent(Exception):
        pass

    def evaluate(mappings: list[Mapping]) -> list[Evaluation]:
        raise Spent

    env = MappingVecEnv(tabular, K, evaluate)
    with pytest.raises(Spent):
        PPO("MlpPolicy", env, n_steps=4, batch_size=12, n_epochs=1, device="cpu").learn(24)


def test_attributes_and_methods(tabular: Problem) -> None:
    env = MappingVecEnv(tabular, K)
    assert env.get_attr("finished", indices=[0, 2]) == [False, False]
    env.set_attr("label", 7, indices=1)
    assert env.get_attr("label", indices=1) == [7]
    assert not env.has_attr("label")
    assert env.env_is_wrapped(VecMonitor) == [False] * K
    assert env.render_mode is None
    env.close()


@pytest.mark.parametrize("action", ["flat", "two-part"])
def test_maskable_ppo_takes_only_legal_actions(tabular: Problem, action: str) -> None:
    env = MappingVecEnv(tabular, K, action=action)
    env.reset()
    assert is_masking_supported(env)
    width = len(tabular.catalogue) if action == "flat" else int(env.action_space.nvec.sum())
    assert get_action_masks(env).shape == (K, width)
    agent = MaskablePPO("MlpPolicy", env, n_steps=4, batch_size=12, n_epochs=2, seed=0, device="cpu")
    agent.learn(24)
    observations = env.reset()
    for _ in env.envs[0].layers:
        actions, _ = agent.predict(observations, action_masks=get_action_masks(env))
        observations, _, _, infos = env.step(actions)
        assert action == "two-part" or not any(info["illegal"] for info in infos)
