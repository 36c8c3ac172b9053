"""REINFORCE: the search-based mapping of Gong et al., section 5.1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from ..envs import MappingEnv, MappingVecEnv, Problem, paper_state
from ..envs.training import reproducible
from ..pruning import Choice, LayerSpec, Mapping
from .base import AGENTS, AgentOptions, Tools
from .learned import LearnedAgent, Policy, asking
from .sequence import SequencePolicy

Rate = Annotated[float, Field(gt=1.0, allow_inf_nan=False)]


class ReinforceOptions(AgentOptions):
    """Options of ``reinforce``."""

    samples: Annotated[int, Field(ge=1)] = 6
    """K: mappings drawn and evaluated together before each gradient step (equation 6)."""

    lr: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = 0.02
    """Learning rate of Adam."""

    hidden: Annotated[int, Field(ge=1)] = 32
    """Size of the states of encoder and decoder."""

    baseline_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.8
    """Weight of the past in the baseline B, the exponential moving average of the batches' mean rewards."""

    normalise: bool = True
    """Whether R - B is divided by its moving root mean square (ours: then rewards of every scale learn alike)."""

    entropy: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.1
    """Bonus for the policy's entropy per nat (ours, against early convergence; 0 is the paper's objective)."""

    repeat: Annotated[float, Field(allow_inf_nan=False)] = 3.0
    """Initial bonus, in logits, for repeating the scheme or the rate of the layer before (ours; learnt from there)."""

    rate: Rate | dict[str, Rate] | None = None
    """Paper mode: the rate of all layers, or of each by name, so that only schemes are searched; null searches both."""


@AGENTS.register("reinforce")
class Reinforce(LearnedAgent):
    """Learns pi(M | I; theta) by policy gradient.

    It maximises J(theta) = E[R(M) | I] (equation 5). Each iteration draws K mappings, acting on K episodes of the
    environment at once, and takes one step of Adam along (1 / K) sum_k (R(M_k) - B) grad log pi(M_k | I; theta)
    (equation 6). In paper mode every layer chooses between dense and the schemes at the rate nearest to the one given
    for it; with rates by name, layers that are not named stay dense.
    """

    name = "reinforce"
    options_type = ReinforceOptions
    options: ReinforceOptions

    def _learn(self, problem: Problem, tools: Tools, rng: np.random.Generator) -> None:
        episodes = _Episodes(problem, self.options.samples, tools, int(rng.integers(2**62)))
        layers, legal = self._facts(problem, episodes.layers)
        with reproducible("cpu", seed=int(rng.integers(2**62))):
            policy = self._network(problem.catalogue, layers.shape[1])
            self._policy = Policy(policy, problem.catalogue, layers.shape[1])
            optimiser = torch.optim.Adam(policy.parameters(), lr=self.options.lr)
            baseline = _Baseline(self.options.baseline_decay)
            while True:
                episodes.start()
                decisions = policy(layers, legal, self.options.samples, episodes.pick)
                weight = torch.from_numpy(self._weight(baseline, episodes.rewards))
                objective = (weight * decisions.log_prob + self.options.entropy * decisions.entropy).mean()
                optimiser.zero_grad()
                (-objective).backward()
                optimiser.step()

    def _weight(self, baseline: _Baseline, rewards: NDArray[np.float32]) -> NDArray[np.float32]:
        advantage, spread = baseline.advantage(rewards)
        return advantage / np.float32(spread) if self.options.normalise else advantage

    def _network(self, catalogue: tuple[Choice, ...], inputs: int) -> SequencePolicy:
        return SequencePolicy(catalogue, inputs, self.options.hidden, self.options.repeat)

    def _greedy(self, policy: Policy, problem: Problem) -> Mapping:
        env = MappingEnv(problem)

        def pick(log_probs: Tensor) -> Tensor:
            best = log_probs.argmax(dim=1)
            env.decide(best)
            return best

        env.reset()
        layers, legal = self._facts(problem, env.layers)
        with reproducible("cpu", seed=0), torch.no_grad():
            policy.seeing(layers.shape[1])(layers, legal, 1, pick)
        return env.mapping

    def _facts(self, problem: Problem, layers: Sequence[LayerSpec]) -> tuple[Tensor, Tensor]:
        """The information I, (layers, 4), and what may be chosen, (layers, choices) bool."""
        if isinstance(self.options.rate, dict):
            for name in self.options.rate:
                problem.network.layer(name)
        offered = [self._offered(layer.name, problem.allowed[layer.name]) for layer in layers]
        legal = [[choice in offers for choice in problem.catalogue] for offers in offered]
        return torch.tensor([paper_state(layer) for layer in layers]), torch.tensor(legal)

    def _offered(self, layer: str, allowed: Sequence[Choice]) -> set[Choice]:
        """The allowed choices; in paper mode those at the given rate, or nearest to it, and dense."""
        rate = self.options.rate.get(layer, 1.0) if isinstance(self.options.rate, dict) else self.options.rate
        if rate is None:
            return set(allowed)
        pruned = {choice.rate for choice in allowed} - {1.0} if rate > 1.0 else set()
        nearest = min(pruned, key=lambda other: abs(math.log(other / rate)), default=1.0)
        return {choice for choice in allowed if choice.rate in (1.0, nearest)}


class _Episodes:
    """K episodes of the environment, stepped together with what the policy draws."""

    def __init__(self, problem: Problem, samples: int, tools: Tools, seed: int) -> None:
        self.rewards: NDArray[np.float32] = np.zeros(samples, np.float32)
        self._env = MappingVecEnv(problem, samples, asking(tools))
        self._generator = torch.Generator().manual_seed(seed)

    @property
    def layers(self) -> tuple[LayerSpec, ...]:
        """The layers that are decided on."""
        return self._env.envs[0].layers

    def start(self) -> None:
        """Start all episodes."""
        self._env.reset()

    def pick(self, log_probs: Tensor) -> Tensor:
        """Draw a choice per episode and step; after the last layer ``rewards`` are those of the finished mappings."""
        taken = torch.multinomial(log_probs.detach().exp(), 1, generator=self._generator)[:, 0]
        _, self.rewards, _, _ = self._env.step(taken.numpy())
        return taken


@dataclass
class _Baseline:
    """B of equation 6 and the scale of R - B: exponential moving averages that start at the first batch's values."""

    decay: float
    mean: float | None = None
    square: float | None = None

    def advantage(self, rewards: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
        """R - B, where B counts this batch already, and the moving root mean square of R - B (1e-6 at least)."""
        self.mean = self._moved(self.mean, float(rewards.mean()))
        advantage = rewards - np.float32(self.mean)
        self.square = self._moved(self.square, float(np.square(advantage).mean()))
        return advantage, max(math.sqrt(self.square), 1e-6)

    def _moved(self, average: float | None, value: float) -> float:
        return value if average is None else self.decay * average + (1.0 - self.decay) * value
