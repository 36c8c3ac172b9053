"""Several episodes in step, their finished mappings evaluated as one batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices

from ..pruning.mapping import Mapping
from .evaluation import Evaluation
from .mapping_env import MappingEnv
from .problem import Problem

Evaluate = Callable[[list[Mapping]], list[Evaluation]]
"""Evaluates a batch of mappings, in order."""


class MappingVecEnv(VecEnv):
    """A Stable-Baselines3 ``VecEnv`` of K ``MappingEnv`` episodes of one problem.

    All episodes have the same number of steps, so that they end together: then the K mappings go to ``evaluate`` as one
    list, which the harness works on in parallel. A finished episode starts again at once, as Stable-Baselines3
    requires; its last observation is in ``info["terminal_observation"]``. ``env_method("action_masks")`` gives the
    masks of all episodes, as sb3-contrib's ``MaskablePPO`` asks.

    Args:
        problem: What to search.
        num_envs: K.
        evaluate: The only part that costs; by default ``problem.evaluate``, one after another in this process. What it
            raises (a spent budget) passes through ``step_wait``.
        observation: As ``MappingEnv``'s.
        action: As ``MappingEnv``'s.
    """

    def __init__(
        self,
        problem: Problem,
        num_envs: int,
        evaluate: Evaluate | None = None,
        *,
        observation: str = "full",
        action: str = "flat",
    ) -> None:
        self.envs = [MappingEnv(problem, observation=observation, action=action) for _ in range(num_envs)]
        self._evaluate: Evaluate = evaluate or problem.evaluate
        self._waiting: NDArray[Any] = np.empty(0)
        super().__init__(num_envs, self.envs[0].observation_space, self.envs[0].action_space)

    def reset(self) -> NDArray[np.float32]:
        """Start all episodes; observations (K, size)."""
        return np.stack([self._start(index) for index in range(self.num_envs)])

    def step_async(self, actions: NDArray[Any]) -> None:
        """Take note of one action per episode."""
        self._waiting = actions

    def step_wait(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """Decide one layer in every episode.

        Returns:
            Observations (K, size), rewards (K,), dones (K,) and K infos.
        """
        decided = [env.decide(action) for env, action in zip(self.envs, self._waiting, strict=True)]
        observations = [observation for observation, _ in decided]
        infos = [info | {"TimeLimit.truncated": False} for _, info in decided]
        rewards = np.zeros(self.num_envs, np.float32)
        dones = np.array([env.finished for env in self.envs])
        if dones.all():
            evaluations = self._evaluate([env.mapping for env in self.envs])
            for index, (env, evaluation) in enumerate(zip(self.envs, evaluations, strict=True)):
                rewards[index], outcome = env.conclude(evaluation)
                infos[index] |= outcome | {"terminal_observation": observations[index]}
                observations[index] = self._start(index)
        return np.stack(observations), rewards, dones, infos

    def close(self) -> None:
        """Nothing is held open."""

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """An attribute of each episode's environment."""
        return [getattr(self.envs[index], attr_name) for index in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of each episode's environment."""
        for index in self._get_indices(indices):
            setattr(self.envs[index], attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of each episode's environment."""
        methods = self.get_attr(method_name, indices)
        return [method(*method_args, **method_kwargs) for method in methods]

    def env_is_wrapped(
        self, wrapper_class: type[gymnasium.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """No episode's environment is wrapped."""
        return [False for _ in self._get_indices(indices)]

    def _start(self, index: int) -> NDArray[np.float32]:
        observation, self.reset_infos[index] = self.envs[index].reset(seed=self._seeds[index])
        self._seeds[index] = None
        return observation
