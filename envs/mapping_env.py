"""The choice of a mapping as a Gymnasium environment: one step per layer, the reward at the last one."""

from __future__ import annotations

from collections.abc import Mapping as AbstractMapping
from typing import Any, TypeVar

import gymnasium
import numpy as np
from gymnasium import spaces

from ..pruning.errors import PrunemapError, unknown_name
from ..pruning.mapping import DENSE, Choice, Mapping
from ..pruning.network import LayerSpec
from .actions import ACTIONS, Mask
from .evaluation import Evaluation
from .live import LiveLatency
from .observation import OBSERVATIONS, Moment, Vector
from .problem import Problem
from .spec import DEFAULT_SPEC, ProblemSpec

T = TypeVar("T")


class MappingEnv(gymnasium.Env[Vector, Any]):
    """Decide on a network's layers in execution order. Everything is deterministic, whatever the seed.

    Layers that can only stay dense are passed over: an episode has one step for each of the others, in ``layers``.

    Observation: float32 in [0, 1]. ``full``: position, layer kind (one of three), log of input and output channels,
    kernel, log of map size, share of MACs, share of the dense latency, whether the layer writes into a residual group,
    scheme (one-hot over the catalogue's) and density of the previous choice, latency of the choices made so far, and
    the reward's budget, the last two as fractions of twice the dense latency. ``paper``: layer type, kernel size, log
    of input and output channels (Gong et al., section 5.1).

    Action: ``flat``: ``Discrete``, the choice's place in ``problem.catalogue``; ``two-part``: ``MultiDiscrete``, family
    of schemes and variant (block size and rate). ``action_masks()`` says what is legal for the layer; dense always is.
    An illegal action acts as dense, and ``info["illegal"]`` is true.

    Reward: 0, and at the last step that of the problem. Undiscounted (gamma 1). ``info["evaluation"]`` holds the whole
    ``Evaluation`` then as plain values, but for ``seconds``, which is not deterministic.

    Args:
        problem: What to search.
        spec: Or what to build it from: a ``ProblemSpec`` or the plain values of one. Given neither, a small problem:
            ``resnet8`` of width 4 on 8x8 digits.
        observation: ``full`` or ``paper``.
        action: ``flat`` or ``two-part``.
        live: Whether the latency at the end of an episode is measured on the compiled network instead of predicted
            from the profile. That is not deterministic: it is ``prunemap/MappingLive-v0``.

    Raises:
        PrunemapError: When both problem and spec are given, no layer has a choice, or an option is unknown.
    """

    metadata = {"render_modes": []}  # noqa: RUF012  # as Gymnasium declares it

    def __init__(
        self,
        problem: Problem | None = None,
        *,
        spec: ProblemSpec | AbstractMapping[str, Any] | None = None,
        observation: str = "full",
        action: str = "flat",
        live: bool = False,
    ) -> None:
        self.problem = _problem(problem, spec)
        self.layers = tuple(layer for layer in self.problem.network.layers if len(self._allowed(layer)) > 1)
        if not self.layers:
            raise PrunemapError("no layer may get anything but dense: allow schemes that fit the network's layers")
        self._observe = _option("observation", observation, OBSERVATIONS)(self.problem, self.layers)
        self._actions = _option("action", action, ACTIONS)(self.problem.catalogue)
        self._live = LiveLatency(self.problem) if live else None
        self.observation_space = spaces.Box(0.0, 1.0, (self._observe.size,), np.float32)
        self.action_space = self._actions.space
        self._decided: dict[str, Choice] = {}
        self._moment = Moment(step=0)

    @property
    def mapping(self) -> Mapping:
        """The choices made so far in this episode; everything else is dense."""
        return Mapping(self._decided)

    @property
    def finished(self) -> bool:
        """Whether all layers are decided."""
        return self._moment.step == len(self.layers)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Vector, dict[str, Any]]:
        """Start an episode. The seed changes nothing; there are no options."""
        super().reset(seed=seed)
        self._decided = {}
        self._moment = Moment(step=0)
        return self._observe(self._moment), {}

    def step(self, action: Any) -> tuple[Vector, float, bool, bool, dict[str, Any]]:
        """Decide on the next layer; evaluate the mapping when it was the last."""
        observation, info = self.decide(action)
        if not self.finished:
            return observation, 0.0, False, False, info
        [evaluation] = self.problem.evaluate([self.mapping])
        reward, outcome = self.conclude(evaluation)
        return observation, reward, True, False, info | outcome

    def action_masks(self) -> Mask:
        """Which actions are legal for the layer that comes next, as sb3-contrib's ``MaskablePPO`` asks: bool.

        ``flat``: (catalogue,). ``two-part``: (families + variants,), the two parts one behind the other.
        """
        allowed = (DENSE,) if self.finished else self._allowed(self.layers[self._moment.step])
        masks = self._actions.masks(allowed)
        # MaskablePPO draws from everything, silently, when nothing is legal.
        assert masks.any(), "dense is always legal"
        return masks

    def decide(self, action: Any) -> tuple[Vector, dict[str, Any]]:
        """The part of ``step`` that costs nothing: note the choice for the next layer.

        Returns:
            The next observation, and an info with ``illegal``.

        Raises:
            PrunemapError: When all layers are decided.
        """
        if self.finished:
            raise PrunemapError("the episode is over: call reset() before the next step")
        layer = self.layers[self._moment.step]
        choice = self._actions.choice(action)
        illegal = choice not in self._allowed(layer)
        choice = DENSE if illegal else choice
        self._decided[layer.name] = choice
        latency = self.problem.predict(self.mapping).ms / self.problem.dense_ms
        self._moment = Moment(self._moment.step + 1, choice, latency)
        return self._observe(self._moment), {"illegal": illegal}

    def conclude(self, evaluation: Evaluation) -> tuple[float, dict[str, Any]]:
        """The reward and the info of a finished episode whose mapping was evaluated."""
        if self._live is not None:
            evaluation = self._live.measured(evaluation)
        values = evaluation.to_dict()
        del values["seconds"]
        return evaluation.reward, {"evaluation": values}

    def _allowed(self, layer: LayerSpec) -> tuple[Choice, ...]:
        return self.problem.allowed[layer.name]


def _problem(problem: Problem | None, spec: ProblemSpec | AbstractMapping[str, Any] | None) -> Problem:
    if problem is not None and spec is not None:
        raise PrunemapError("MappingEnv: give a problem or a spec, not both")
    if problem is not None:
        return problem
    if isinstance(spec, AbstractMapping):
        spec = ProblemSpec.from_dict(spec)
    return Problem.from_spec(spec or DEFAULT_SPEC)


def _option(kind: str, name: str, known: AbstractMapping[str, T]) -> T:
    if name not in known:
        raise unknown_name(kind, name, known)
    return known[name]
