"""The problem: all that a searcher may see, and the evaluation of a mapping."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import ArrayLike
from torch import nn

from ..latency import Prediction, Profile, cached_profile
from ..pruning.errors import PrunemapError
from ..pruning.mapping import DENSE, Choice, Mapping
from ..pruning.network import Network
from .accuracy import Recipe
from .choices import Choices
from .datasets import Dataset, load_dataset
from .evaluation import Evaluation
from .rewards import Reward
from .size import size_under
from .spec import ProblemSpec
from .tabular import AccuracyTable, LatencyTable
from .trained import Progress, TrainedAccuracy, structure


class AccuracySource(Protocol):
    """Where accuracies come from: training, or a table."""

    @property
    def epochs(self) -> int:
        """Training epochs that one accuracy costs."""
        ...

    @property
    def dense(self) -> float:
        """Validation accuracy of the dense network, as a fraction."""
        ...

    def __call__(self, mapping: Mapping, seed: int) -> float:
        """Accuracy of a canonical mapping, as a fraction: a function of its arguments and of ``digest`` alone."""
        ...

    def digest(self) -> str:
        """Hash of everything that accuracies depend on besides mapping and seed."""
        ...


class LatencySource(Protocol):
    """Where latencies come from: a profile, or a table."""

    def layer_ms(self, layer: str, choice: Choice) -> float:
        """Latency of one layer in ms, all its channels alive."""
        ...

    def predict(self, network: Network, mapping: Mapping) -> Prediction:
        """Latency of the network under a mapping, in ms."""
        ...

    def digest(self) -> str:
        """Hash of everything that latencies depend on besides network, weights and mapping."""
        ...


@dataclass(frozen=True, eq=False)
class Problem:
    """Network, data, recipe, allowed choices, profile and reward. Immutable; evaluation is pure.

    Attributes:
        choices: The network and what each of its layers may get.
        profile: Where latencies come from.
        accuracy: Where accuracies come from.
        reward: What a search maximises.
        spec: What the problem was built from; None for a problem made of tables. ``Problem.from_spec`` of it makes an
            identical problem in any process that finds the same cache folder.
    """

    choices: Choices
    profile: LatencySource
    accuracy: AccuracySource
    reward: Reward
    spec: ProblemSpec | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Problem:
        """The problem itself: it is immutable, and Gymnasium copies the arguments of environments often."""
        return self

    @classmethod
    def from_spec(
        cls, spec: ProblemSpec, *, profile: Profile | None = None, progress: Progress | None = None
    ) -> Problem:
        """Build the network, load the data, and make the dense weights and the profile or take them from the cache.

        Args:
            spec: The description.
            profile: Taken instead of the one that ``spec.latency`` names.
            progress: Told how far training and measuring are.

        Raises:
            PrunemapError: For options that the network or the data does not take, layers in ``choices.skip`` that the
                network has not, missing data, a module inside the network that cannot be captured, a profile that is
                not of this problem, or weights that do not fit.
        """
        # What may be wrong comes first, training last: it takes longest.
        data = load_dataset(spec.data.name, **spec.data.options)
        network = structure(spec, data)
        choices = Choices(network, spec.choices.catalogue(), frozenset(spec.choices.skip))
        profile = profile or _profile(spec, network, progress)
        _check(profile, spec, choices)
        accuracy = TrainedAccuracy.from_spec(spec, data, network, progress)
        return cls(choices, profile.with_weights(accuracy.model.state_dict()), accuracy, spec.reward.build(), spec)

    @classmethod
    def tabular(
        cls,
        network: Network,
        choices: Sequence[Choice],
        accuracy: Callable[[Mapping], float] | ArrayLike,
        latency: ArrayLike,
        reward: Reward,
    ) -> Problem:
        """A problem of plain tables, for tests and benchmarks whose optimum is known. Nothing is trained or measured.

        Args:
            network: Any captured network; only its structure is used.
            choices: The catalogue; dense is put first when it is not there. Other rates snap to the nearest of these.
            accuracy: (layers, catalogue) with values from 0 to 1: a mapping's accuracy is the mean over its layers. Or
                a pure function of the mapping (its qualified name then stands for it in keys).
            latency: (layers, catalogue) in ms: a mapping's latency is the sum over its layers.
            reward: What a search maximises.

        Raises:
            PrunemapError: When a table's shape is not (layers, catalogue).
        """
        legal = Choices(network, tuple(dict.fromkeys((DENSE, *choices))), snap=True)
        return cls(legal, LatencyTable(legal, latency), AccuracyTable(legal, accuracy), reward)

    @property
    def network(self) -> Network:
        """The captured network."""
        return self.choices.network

    @property
    def catalogue(self) -> tuple[Choice, ...]:
        """Every choice that some layer may get, dense first: independent of the network."""
        return self.choices.catalogue

    @property
    def allowed(self) -> dict[str, tuple[Choice, ...]]:
        """Layer name -> the choices of the catalogue that differ for it, dense first."""
        return self.choices.allowed

    @property
    def trained(self) -> TrainedAccuracy:
        """Dense weights, data and recipe; PrunemapError on a problem made of tables, which has none."""
        if not isinstance(self.accuracy, TrainedAccuracy):
            raise PrunemapError("this problem is made of tables: it has no weights, data or recipe")
        return self.accuracy

    @property
    def model(self) -> nn.Module:
        """The trained dense network, in evaluation mode; not to be changed. Raises like ``trained``."""
        return self.trained.model

    @property
    def data(self) -> Dataset:
        """Images to train on, to validate and to test. Raises like ``trained``."""
        return self.trained.data

    @property
    def recipe(self) -> Recipe:
        """How networks are trained. Raises like ``trained``."""
        return self.trained.recipe

    @property
    def seed(self) -> int:
        """Seed of everything random in the problem. Raises like ``trained``."""
        return self.trained.seed

    @property
    def dense_accuracy(self) -> float:
        """Validation accuracy of the dense network, as a fraction."""
        return self.accuracy.dense

    @cached_property
    def dense_ms(self) -> float:
        """Predicted latency of the dense network in ms: what ``latency_fraction`` is a fraction of."""
        return self.profile.predict(self.network, Mapping()).ms

    def canonical(self, mapping: Mapping) -> Mapping:
        """The mapping that stands for all that prune the network in the same way: what is hashed and evaluated.

        Raises:
            PrunemapError: For a layer that the network has not, or a choice that the layer may not get.
        """
        return self.choices.canonical(mapping)

    def predict(self, mapping: Mapping) -> Prediction:
        """Latency in ms from the profile, with its bounds; nothing is measured. Raises like ``canonical``."""
        return self.profile.predict(self.network, self.canonical(mapping))

    def evaluate(self, mappings: Sequence[Mapping], replicate: int = 0) -> list[Evaluation]:
        """Try mappings: one-shot pruning, fast retraining, validation accuracy, predicted latency, reward.

        Pure: the same mapping gives the same evaluation wherever it runs, but for the seconds it took. A training that
        fails gives an evaluation that says so; its reward is that of accuracy 0. Mappings that the reward refuses for
        their latency are not trained.

        Args:
            mappings: What to try.
            replicate: Another number trains from another seed.

        Returns:
            One evaluation per mapping, in order.

        Raises:
            PrunemapError: For a mapping that is not legal here, as ``canonical``; nothing is trained then.
        """
        canonical = [self.canonical(mapping) for mapping in mappings]
        return [self._evaluate(mapping, replicate) for mapping in canonical]

    def accuracy_key(self, mapping: Mapping, replicate: int = 0) -> str:
        """Hash of all that the accuracy depends on.

        That is dense weights, data, recipe, seed, torch version and processor capability, the canonical mapping and the
        replicate.
        """
        return _hash(self.accuracy.digest(), self.canonical(mapping).to_json(), replicate)

    def evaluation_key(self, mapping: Mapping, replicate: int = 0) -> str:
        """Hash of all that the evaluation depends on: what the accuracy does, the profile and the reward."""
        reward = type(self.reward).__qualname__, self.reward.model_dump_json()
        return _hash(self.accuracy_key(mapping, replicate), self._profile_digest, *reward)

    @cached_property
    def _profile_digest(self) -> str:
        return self.profile.digest()

    def _evaluate(self, mapping: Mapping, replicate: int) -> Evaluation:
        start = time.perf_counter()
        ms = self.profile.predict(self.network, mapping).ms
        latency = self.reward.latency(ms, self.dense_ms)
        reward = self.reward.refusal(latency)
        refused = reward is not None
        accuracy, failed = (None, None) if refused else self._train(mapping, replicate)
        return Evaluation(
            mapping=self.choices.named(mapping),
            accuracy=accuracy,
            latency_ms=ms,
            latency_fraction=ms / self.dense_ms,
            reward=self.reward.value(accuracy or 0.0, latency) if reward is None else reward,
            epochs=0 if refused else self.accuracy.epochs,
            key=self.evaluation_key(mapping, replicate),
            replicate=replicate,
            failed=failed,
            seconds=time.perf_counter() - start,
            **asdict(size_under(self.network, mapping)),
        )

    def _train(self, mapping: Mapping, replicate: int) -> tuple[float | None, str | None]:
        """The accuracy, or why there is none."""
        seed = int(self.accuracy_key(mapping, replicate)[:15], 16)
        try:
            accuracy = self.accuracy(mapping, seed)
        except Exception as error:  # Whatever happens to one candidate, the search goes on without it.
            return None, f"{type(error).__name__}: {error}"
        if not math.isfinite(accuracy):
            return None, f"the accuracy is {accuracy}"
        return accuracy, None


def _profile(spec: ProblemSpec, network: Network, progress: Progress | None) -> Profile:
    latency = spec.latency
    if latency.profile != "auto":
        return Profile.load(Path(latency.profile))
    choices = spec.choices
    return cached_profile(network, choices.schemes, choices.rates, latency.threads, isa=latency.isa, progress=progress)


def _check(profile: Profile, spec: ProblemSpec, choices: Choices) -> None:
    """Refuse a profile that cannot price this problem's choices, before anything is searched."""
    profile.predict(choices.network, Mapping())
    profile.check_steady()
    if profile.threads != spec.latency.threads:
        raise PrunemapError(
            f"problem.latency.threads is {spec.latency.threads}, but the profile was measured with {profile.threads}"
        )
    if spec.latency.isa not in ("auto", profile.machine.isa):
        raise PrunemapError(
            f"problem.latency.isa is {spec.latency.isa}, but the profile was measured with {profile.machine.isa}"
        )
    measured = {choice.scheme for choice in profile.choices}
    if missing := [scheme for scheme in choices.schemes if scheme not in measured]:
        raise PrunemapError(f"the profile holds no {', '.join(missing)}; build one with all of problem.choices.schemes")


def _hash(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
