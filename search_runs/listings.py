"""The command ``list``: what there is to choose from."""

from __future__ import annotations

import inspect
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from .tables import Row, show, text


def listing(args: Namespace) -> int:
    """List one kind of things; what it needs is imported then."""
    rows = KINDS[args.what](args.runs)
    keys = list(dict.fromkeys(key for row in rows for key in row))
    show(rows, [text(key) for key in keys], args.format)
    return 0


def _agents(runs: Path) -> list[Row]:
    from ..agents import AGENTS

    return [
        {
            "agent": name,
            "learns": "yes" if AGENTS[name].learned else "no",
            "what it does": (inspect.getdoc(AGENTS[name]) or "").partition("\n\n")[0].replace("\n", " "),
            "options": " ".join(
                f"{option}={field.default}" for option, field in AGENTS[name].options_type.model_fields.items()
            ),
        }
        for name in AGENTS
    ]


def _schemes(runs: Path) -> list[Row]:
    from ..pruning import fit_table

    return list(fit_table())


def _networks(runs: Path) -> list[Row]:
    from ..envs import NETWORKS
    from ..envs.options import option_names

    return [
        {
            "network": name,
            "input": "x".join(map(str, NETWORKS[name].input_shape)),
            "description": NETWORKS[name].description,
            "options": " ".join(option_names(NETWORKS[name].build)),
        }
        for name in NETWORKS
    ]


def _datasets(runs: Path) -> list[Row]:
    from ..envs import DATASETS
    from ..envs.options import option_names

    return [
        {
            "dataset": name,
            "description": DATASETS[name].description,
            "options": " ".join(option_names(DATASETS[name].load)),
        }
        for name in DATASETS
    ]


def _configs(runs: Path) -> list[Row]:
    from .config import bundled_configs, load_config

    return [
        {
            "config": name,
            "network": config.problem.network.name,
            "data": config.problem.data.name,
            "agents": " ".join(agent.name for agent in config.agents),
            "evaluations": config.budget.evaluations,
        }
        for name in bundled_configs()
        for config in [load_config(name)]
    ]


def _runs(runs: Path) -> list[Row]:
    from .folder import all_runs
    from .results import best_trial, trial_statuses
    from .store import Store

    rows: list[Row] = []
    for folder in all_runs(runs):
        config = folder.config()
        with Store(folder.database, readonly=True) as store:
            statuses = trial_statuses(store, config)
        best = best_trial(statuses)
        rows.append(
            {
                "run": folder.path.name,
                "trials done": f"{sum(status.state == 'done' for status in statuses)} of {len(statuses)}",
                "evaluations": sum(status.answered for status in statuses),
                "best": None if best is None else str(best.asker),
                "best reward": None if best is None or best.best is None else round(best.best["reward"], 4),
            }
        )
    return rows


KINDS: dict[str, Callable[[Path], list[Row]]] = {
    "agents": _agents,
    "schemes": _schemes,
    "networks": _networks,
    "datasets": _datasets,
    "configs": _configs,
    "runs": _runs,
}
