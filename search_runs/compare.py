"""The command ``compare``: every trial's best mapping, compiled and measured beside the dense network."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence

from torch import nn

from ..envs import Problem
from ..kernels import compile_network
from ..latency import Measurement, Profile, exclusive_lock, measure_interleaved, pinned
from ..pruning import apply_mapping
from ..pruning.errors import PrunemapError
from ..pruning.mapping import Mapping
from .config import RunConfig
from .folder import RunFolder, open_run
from .progress import notice
from .results import mapping_of, trial_statuses
from .search import build_problem
from .store import Answer, Asker, Store
from .tables import Row, milliseconds, number, percent, remark, show, text

COLUMNS = (
    text("method"),
    percent("accuracy", "accuracy"),
    milliseconds("predicted_ms", "predicted ms"),
    milliseconds("measured_ms", "measured ms", "mad_ms"),
    number("speedup", "speed-up", ".2f", "x"),
    number("rate", "rate", ".2f", "x"),
    number("reward", "reward", ".4f"),
    number("evaluations", "evaluations"),
    number("epochs", "epochs"),
    number("seconds", "seconds", ".1f"),
)


def compare(args: Namespace) -> int:
    """Print one row per agent and seed, and the dense network's."""
    folder = open_run(args.run_name, args.runs)
    config = folder.config()
    bests = best_answers(folder, config)
    problem = build_problem(config, Profile.load(folder.profile_file))
    notice(f"compiling and measuring {len(bests)} mappings and the dense network, interleaved")
    pruned = [apply_mapping(problem.model, mapping_of(best), problem.network) for best, _ in bests.values()]
    dense, *measured = measure_models(problem, [problem.model, *pruned])
    rows = [_dense_row(problem, dense)]
    for (asker, (best, history)), found in zip(bests.items(), measured, strict=True):
        rows.append(_row(asker, best, history, found, dense))
    show(rows, COLUMNS, args.format, folder.name)
    if args.format == "table":
        remark(_legend(problem, rows))
    return 0


def best_answers(folder: RunFolder, config: RunConfig) -> dict[Asker, tuple[Answer, list[Answer]]]:
    """Every trial that found something -> its best evaluation and all that it asked for.

    Raises:
        PrunemapError: When no trial has found anything yet.
    """
    with Store(folder.database, readonly=True) as store:
        statuses = trial_statuses(store, config)
        found = {s.asker: (s.best, store.history(s.asker)) for s in statuses if s.best is not None}
    if not found:
        raise PrunemapError(f"{folder.name}: nothing was evaluated with success yet")
    return found


def measure_models(problem: Problem, models: Sequence[nn.Module]) -> list[Measurement]:
    """Compile networks of a problem as its profile did, and measure all of them interleaved."""
    threads, isa = latency_settings(problem)
    example = problem.data.train.images[:1]
    with exclusive_lock(), pinned(threads):
        return measure_interleaved([compile_network(model, example, threads, isa) for model in models])


def latency_settings(problem: Problem) -> tuple[int, str]:
    """Threads and instruction set that the problem's latencies are of."""
    if not isinstance(problem.profile, Profile):
        raise PrunemapError("this problem's latencies come from a table, not from a machine")
    return problem.profile.threads, problem.profile.machine.isa


def measured_columns(found: Measurement, dense: Measurement) -> Row:
    """A measurement, and how many times faster it is than the dense network's, as columns."""
    return {
        "measured_ms": found.median_ms,
        "mad_ms": found.mad_ms,
        "p90_ms": found.p90_ms,
        "unstable": found.unstable,
        "disturbed": found.disturbed,
        "speedup": dense.median_ms / found.median_ms,
    }


def flagged(rows: Sequence[Row], name: str) -> str:
    """What a legend says of measurements that are not to be trusted; ``name``: the column with the rows' names."""
    told = ""
    for flag, words in (("unstable", "Unsteady (MAD above 1 %)"), ("disturbed", "Disturbed (something else computed)")):
        named = [str(row[name]) for row in rows if row.get(flag)]
        told += f" {words}: {', '.join(named)}." if named else ""
    return told


def _dense_row(problem: Problem, measured: Measurement) -> Row:
    """The dense network, retrained as fast as every other row's was."""
    return {
        "method": "dense",
        "accuracy": problem.accuracy(Mapping(), 0),
        "predicted_ms": problem.dense_ms,
        **measured_columns(measured, measured),
        "rate": 1.0,
    }


def _row(asker: Asker, best: Answer, history: Sequence[Answer], measured: Measurement, dense: Measurement) -> Row:
    return {
        "method": str(asker),
        "agent": asker.agent,
        "seed": asker.seed,
        "accuracy": best["accuracy"],
        "predicted_ms": best["latency_ms"],
        **measured_columns(measured, dense),
        "rate": best["rate"],
        "reward": best["reward"],
        "evaluations": len(history),
        "epochs": sum(answer["epochs"] for answer in history),
        "seconds": sum(answer["seconds"] for answer in history),
        "mapping": best["mapping"],
    }


def _legend(problem: Problem, rows: Sequence[Row]) -> str:
    spec = problem.trained
    threads, isa = latency_settings(problem)
    return (
        f"accuracy: validation images, after {spec.epochs} epochs of retraining, the dense network's too. A method's "
        "row is the best reward among its own evaluations, so methods that ask more profit more from noise. "
        "measured: median ± MAD of the "
        f"compiled network, all rows interleaved, batch 1, {threads} thread(s), {isa}; speed-up: over dense on the "
        "same kernels. "
        "evaluations, epochs, seconds: all that the method asked for." + flagged(rows, "method")
    )
