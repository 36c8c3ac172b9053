"""What the trials of a run have come to; the command ``status``."""

from __future__ import annotations

import platform
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

from ..envs import Evaluation
from ..pruning.mapping import Mapping
from .config import RunConfig
from .folder import open_run
from .store import Answer, Asker, Store, TrialStatus
from .tables import Column, Row, milliseconds, number, percent, show, text

_PACKAGES = ("prunemap", "torch", "ray", "gymnasium", "stable-baselines3", "sb3-contrib", "numpy")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    return {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES}


def trial_statuses(store: Store, config: RunConfig) -> list[TrialStatus]:
    """How far every trial is, in the configuration's order."""
    return [store.status(Asker(agent.name, seed)) for agent, seed in config.trials()]


def best_trial(statuses: Sequence[TrialStatus]) -> TrialStatus | None:
    """The trial with the largest reward, the first of equals; None when nothing was evaluated with success."""
    found = [status for status in statuses if status.best is not None]
    return max(found, key=_reward, default=None)


def best_of(statuses: Sequence[TrialStatus]) -> dict[str, Any]:
    """What ``best.json`` holds: the best trial's name and every trial's best evaluation."""
    best = best_trial(statuses)
    trials = {
        str(status.asker): {"agent": status.asker.agent, "seed": status.asker.seed, "evaluation": status.best}
        for status in statuses
    }
    return {"best": best and str(best.asker), "trials": trials}


def mapping_of(answer: Answer) -> Mapping:
    """The mapping of a stored evaluation."""
    return Evaluation.from_dict(answer).mapping


def print_statuses(statuses: Sequence[TrialStatus], budget: int, form: str = "table", title: str | None = None) -> None:
    """Show trials, one row each."""
    columns = (
        text("trial"),
        text("state"),
        Column("answered", "evaluations", lambda value, row: f"{value}/{row['budget']}", right=True),
        number("reward", "best reward", ".4f"),
        percent("accuracy", "accuracy"),
        milliseconds("latency_ms", "predicted ms"),
        percent("latency_fraction", "of dense", 0),
        number("rate", "rate", ".1f", "x"),
        text("message"),
    )
    shown = columns if any(status.message for status in statuses) else columns[:-1]
    show([_row(status, budget) for status in statuses], shown, form, title)


def status(args: Namespace) -> int:
    """Show how far a run is; it may be running."""
    folder = open_run(args.run_name, args.runs)
    config = folder.config()
    with Store(folder.database, readonly=True) as store:
        statuses = trial_statuses(store, config)
    if not folder.is_locked():
        statuses = [_interrupted(status) for status in statuses]
    print_statuses(statuses, config.budget.evaluations, args.format, folder.name)
    return 0


def _interrupted(status: TrialStatus) -> TrialStatus:
    """The truth about a trial that was running when its search was killed."""
    return replace(status, state="interrupted") if status.state == "running" else status


def _row(status: TrialStatus, budget: int) -> Row:
    keys = ("reward", "accuracy", "latency_ms", "latency_fraction", "macs", "kept_weights", "rate", "stored_bytes")
    best: Answer = status.best or {}
    return {
        "trial": str(status.asker),
        "agent": status.asker.agent,
        "seed": status.asker.seed,
        "state": status.state,
        "asked": status.asked,
        "answered": status.answered,
        "budget": budget,
        **{key: best.get(key) for key in keys},
        "message": status.message,
    }


def _reward(status: TrialStatus) -> float:
    assert status.best is not None
    return float(status.best["reward"])
