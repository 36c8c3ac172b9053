"""PPO: Stable-Baselines3's proximal policy optimisation on the mapping environment."""

from __future__ import annotations

import sys
from typing import Annotated

import numpy as np
from gymnasium import spaces
from pydantic import Field
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3.common.logger import Logger

from ..envs import MappingEnv, MappingVecEnv, Problem
from ..envs.training import reproducible
from ..pruning import Choice, Mapping
from .base import AGENTS, AgentOptions, Tools
from .learned import LearnedAgent, Policy, asking

Positive = Annotated[int, Field(ge=1)]


class PpoOptions(AgentOptions):
    """Options of ``ppo``."""

    episodes: Annotated[int, Field(ge=2)] = 4
    """Mappings drawn and evaluated together: a roll-out is as many whole episodes."""

    epochs: Positive = 10
    """Passes over a roll-out, each one gradient step on all of it."""

    lr: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = 0.01
    """Learning rate of Adam."""

    hidden: Positive = 64
    """Size of the two hidden layers of actor and critic each."""

    clip: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = 0.2
    """How far the probability of a choice may move per roll-out, as a fraction."""

    entropy: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.01
    """Bonus for the policy's entropy per nat."""

    gae_lambda: Annotated[float, Field(ge=0.0, le=1.0)] = 0.95
    """Weight of later steps in generalised advantage estimation; 1 uses the episode's reward alone."""


@AGENTS.register("ppo")
class Ppo(LearnedAgent):
    """MaskablePPO of sb3-contrib: Stable-Baselines3's PPO that draws from legal choices only.

    It sees what the environment shows before each layer, previous choice and latency so far included. Undiscounted, as
    the reward comes with the last layer.
    """

    name = "ppo"
    options_type = PpoOptions
    options: PpoOptions

    def _learn(self, problem: Problem, tools: Tools, rng: np.random.Generator) -> None:
        env = MappingVecEnv(problem, self.options.episodes, asking(tools))
        steps = len(env.envs[0].layers)
        # Stable-Baselines3 draws from the global generators; `reproducible` seeds and restores them.
        with reproducible("cpu", seed=int(rng.integers(2**62))):
            model = MaskablePPO(
                MaskableActorCriticPolicy,
                env,
                learning_rate=self.options.lr,
                n_steps=steps,
                batch_size=steps * self.options.episodes,
                n_epochs=self.options.epochs,
                gamma=1.0,
                gae_lambda=self.options.gae_lambda,
                clip_range=self.options.clip,
                ent_coef=self.options.entropy,
                policy_kwargs={"net_arch": self._architecture},
                device="cpu",
            )
            # Its own logger would make a folder among the temporary files.
            model.set_logger(Logger(folder=None, output_formats=[]))
            self._policy = Policy(model.policy, problem.catalogue, spaces.flatdim(env.observation_space))
            model.learn(total_timesteps=sys.maxsize)

    def _network(self, catalogue: tuple[Choice, ...], inputs: int) -> MaskableActorCriticPolicy:
        return MaskableActorCriticPolicy(
            spaces.Box(0.0, 1.0, (inputs,), np.float32),
            spaces.Discrete(len(catalogue)),
            lr_schedule=lambda _: self.options.lr,
            net_arch=self._architecture,
        )

    def _greedy(self, policy: Policy, problem: Problem) -> Mapping:
        env = MappingEnv(problem)
        network = policy.seeing(spaces.flatdim(env.observation_space))
        assert isinstance(network, MaskableActorCriticPolicy)
        observation, _ = env.reset()
        with reproducible("cpu", seed=0):
            while not env.finished:
                action, _ = network.predict(observation, deterministic=True, action_masks=env.action_masks())
                observation, _ = env.decide(action)
        return env.mapping

    @property
    def _architecture(self) -> list[int]:
        return [self.options.hidden, self.options.hidden]
