"""The command ``bench signal``: does the fast accuracy of a problem tell good mappings from bad?"""

from __future__ import annotations

import tempfile
from argparse import Namespace
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau

from ..agents import AGENTS, BudgetSpent, Candidate
from ..envs import Evaluation, Problem, full_retrain
from ..envs.spec import RewardSpec
from ..latency import Profile
from ..pruning import make_masks
from ..pruning.errors import PrunemapError
from ..pruning.mapping import Mapping
from .config import RunConfig, load_config
from .progress import notice, progress_bar
from .search import build_problem, overrides
from .tables import Row, number, percent, remark, show, text

ENOUGH = 0.5
"""Kendall's tau from which a problem is said to carry signal."""
FEWEST = 10
_RESAMPLES = 2000

_COLUMNS = (
    text("problem"),
    number("mappings", "mappings"),
    text("tau_in_words", "Kendall tau, fast against full [95 %]"),
    percent("noise", "seed sd of fast"),
    text("fast_range", "fast: min / median / max"),
    text("full_range", "full: min / median / max"),
    percent("dense", "dense"),
)


@dataclass(frozen=True)
class Tried:
    """One mapping that was retrained fast, several times, and fully.

    Attributes:
        mapping: The mapping.
        fast: Validation accuracy after fast retraining, one per replicate; the first is what a search sees.
        full: Validation accuracy after full retraining.
    """

    mapping: Mapping
    fast: tuple[float, ...]
    full: float


def signal(args: Namespace) -> int:
    """Retrain random mappings fast and fully on the workers; print how well the two orders agree."""
    if args.mappings < FEWEST:
        raise PrunemapError(f"--mappings {args.mappings}: at least {FEWEST} are needed to tell anything")
    if args.replicates < 2:
        raise PrunemapError(f"--replicates {args.replicates}: noise shows from 2 repetitions on")
    config = _never_refusing(load_config(args.config, overrides(args)))
    problem = build_problem(config)
    mappings = draw(problem, args.mappings)
    tried = [found for found in _try(config, problem, mappings, args.replicates) if found is not None]
    if len(tried) < FEWEST:
        raise PrunemapError(f"{args.config}: training failed for {len(mappings) - len(tried)} mappings; see its recipe")
    row = _row(config, problem, tried)
    show([row], _COLUMNS, args.format)
    if args.format == "table":
        remark(_verdict(problem, row, args.replicates))
    return 0


def draw(problem: Problem, count: int) -> list[Mapping]:
    """Distinct random mappings, as the agent ``random`` draws them from seed 0."""
    wish = _Wish(problem, count)
    with suppress(BudgetSpent):
        AGENTS["random"]().search(problem, wish, np.random.default_rng(0))
    return list(wish.found.values())


def agreement(tried: Sequence[Tried]) -> tuple[float, float, float]:
    """Kendall's tau-b between fast and full accuracy, and its 95 % interval (percentile bootstrap over mappings)."""
    pairs = np.array([(one.fast[0], one.full) for one in tried])
    rng = np.random.default_rng(0)
    samples = (pairs[rng.integers(len(pairs), size=len(pairs))] for _ in range(_RESAMPLES))
    low, high = np.nanpercentile([_tau(sample) for sample in samples], (2.5, 97.5))
    return _tau(pairs), float(low), float(high)


def seed_noise(tried: Sequence[Tried]) -> float:
    """Standard deviation of the fast accuracy over replicates, pooled over mappings."""
    return float(np.sqrt(np.mean([np.var(one.fast, ddof=1) for one in tried])))


class _Wish:
    """Tools that only note what is asked for, until there are enough distinct mappings."""

    def __init__(self, problem: Problem, count: int) -> None:
        self.found: dict[str, Mapping] = {}
        self._problem, self._count = problem, count
        self._patience = 100 * count

    @property
    def remaining(self) -> int:
        return self._count - len(self.found)

    def evaluate(self, candidates: Sequence[Candidate]) -> list[Evaluation]:
        for candidate in candidates:
            self._patience -= 1
            self.found.setdefault(self._problem.accuracy_key(candidate.mapping), candidate.mapping)
            if not self.remaining or not self._patience:
                raise BudgetSpent
        return []


def _never_refusing(config: RunConfig) -> RunConfig:
    """The configuration with a reward that has every mapping trained; accuracies do not depend on rewards."""
    return config.model_copy(update={"problem": config.problem.model_copy(update={"reward": RewardSpec()})})


def _try(config: RunConfig, problem: Problem, mappings: Sequence[Mapping], replicates: int) -> list[Tried | None]:
    from .tune import map_on_workers, ray_session

    if not isinstance(problem.profile, Profile):
        raise PrunemapError("bench signal: this problem is made of tables")
    items = [(mapping.to_json(), replicates) for mapping in mappings]
    found: list[Tried | None] = [None] * len(items)
    notice(f"starting Ray and {config.workers} worker(s)")
    with tempfile.TemporaryDirectory() as folder, ray_session(config), progress_bar() as report:
        profile = Path(folder) / "profile.parquet"
        problem.profile.save(profile)
        report(0, len(items), "retraining random mappings")
        for done, (position, tried) in enumerate(map_on_workers(config, str(profile), retrain_both, items), 1):
            found[position] = tried
            report(done, len(items), "retraining random mappings")
    return found


def retrain_both(problem: Problem, item: tuple[str, int]) -> Tried | None:
    """Retrain one mapping fast, once per replicate, and fully; None when a training fails."""
    text, replicates = item
    mapping = Mapping.from_json(text)
    fast = [problem.evaluate([mapping], replicate)[0].accuracy for replicate in range(replicates)]
    if None in fast:
        return None
    masks = make_masks(problem.model, problem.canonical(mapping), problem.network)
    full = full_retrain(problem.model, masks, problem.data, problem.recipe, problem.seed)
    return Tried(mapping, tuple(accuracy for accuracy in fast if accuracy is not None), full.validation)


def _row(config: RunConfig, problem: Problem, tried: Sequence[Tried]) -> Row:
    tau, low, high = agreement(tried)
    fast, full = [one.fast[0] for one in tried], [one.full for one in tried]
    return {
        "problem": config.name,
        "mappings": len(tried),
        "tau": tau,
        "tau_low": low,
        "tau_high": high,
        "tau_in_words": f"{tau:.2f} [{low:.2f}, {high:.2f}]",
        "noise": seed_noise(tried),
        "fast_range": _range(fast),
        "full_range": _range(full),
        "dense": problem.dense_accuracy,
    }


def _verdict(problem: Problem, row: Row, replicates: int) -> str:
    recipe = problem.recipe
    verdict = "carries signal" if row["tau"] >= ENOUGH else "saturates: narrow its network or harden its data"
    return (
        f"{row['problem']} {verdict} (tau {row['tau']:.2f}, wanted {ENOUGH}). Fast: {recipe.fast_epochs} epochs, "
        f"{replicates} seeds; full: {recipe.full_epochs}. Validation accuracy of {row['mappings']} mappings, drawn as "
        "the agent random does."
    )


def _tau(pairs: NDArray[np.float64]) -> float:
    return float(kendalltau(pairs[:, 0], pairs[:, 1]).statistic)


def _range(values: Sequence[float]) -> str:
    return " / ".join(f"{value:.1%}" for value in np.percentile(values, (0, 50, 100)))
