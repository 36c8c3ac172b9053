"""The command ``replay``: a run's best result again, to the bit; then trained fully, compiled and measured."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass

from torch import nn

from ..agents import LearnedAgent
from ..envs import Evaluation, Problem, evaluate_accuracy, full_retrain, save_weights
from ..latency import Measurement, Profile
from ..pruning import make_masks
from ..pruning.errors import PrunemapError
from .compare import best_answers, flagged, latency_settings, measure_models, measured_columns
from .config import RunConfig
from .folder import RunFolder, open_run, write_json
from .progress import notice
from .search import build_problem
from .store import Answer, Asker
from .tables import Row, milliseconds, number, percent, remark, show, text

COLUMNS = (
    text("network"),
    percent("test", "test accuracy"),
    percent("validation", "validation"),
    milliseconds("predicted_ms", "predicted ms"),
    milliseconds("measured_ms", "measured ms", "mad_ms"),
    number("speedup", "speed-up", ".2f", "x"),
    number("rate", "rate", ".2f", "x"),
)


@dataclass(frozen=True)
class Check:
    """A recorded evaluation that was done again.

    Attributes:
        what: What was repeated.
        recorded: The record.
        again: What came out now.
    """

    what: str
    recorded: Evaluation
    again: Evaluation

    @property
    def equal(self) -> bool:
        """Whether every value but the seconds came back, to the bit."""
        return self.recorded == self.again

    def in_words(self) -> str:
        """The check in one line; differing values are named."""
        if self.equal:
            return f"{self.what}: accuracy {self.recorded.accuracy or 0.0:.2%} and all else come back to the bit"
        again = self.again.to_dict()
        before = {key: value for key, value in self.recorded.to_dict().items() if key != "seconds"}
        odd = [f"{key} was {old!r}, is {again[key]!r}" for key, old in before.items() if old != again[key]]
        return f"{self.what} DIFFERS: {'; '.join(odd)}"


def replay(args: Namespace) -> int:
    """Repeat the best result of a run, or of one of its agents; status 1 when it does not come back to the bit."""
    folder = open_run(args.run_name, args.runs)
    config = folder.config()
    asker, best, history = _chosen(folder, config, args.agent, args.seed)
    problem = build_problem(config, Profile.load(folder.profile_file))
    notice(f"replaying {asker}: evaluating its best result again")
    checks = _check(folder, asker, problem, best, history)
    for check in checks:
        notice(f"  {check.in_words()}")
    if not all(check.equal for check in checks):
        notice(f"replay: {asker} does not come back to the bit; nothing further was done")
        return 1
    chosen = max((check.recorded for check in checks), key=lambda evaluation: evaluation.reward)
    rows = _retrain_and_measure(problem, chosen, folder, asker)
    show(rows, COLUMNS, args.format, f"{folder.name}: {asker}")
    if args.format == "table":
        remark(_legend(problem, chosen) + flagged(rows, "network"))
    return 0


def _chosen(
    folder: RunFolder, config: RunConfig, agent: str | None, seed: int | None
) -> tuple[Asker, Answer, list[Answer]]:
    """The trial to replay: of those that were asked for, the one with the largest reward."""
    if agent is not None:
        config.agent(agent)
    wanted = {
        asker: found
        for asker, found in best_answers(folder, config).items()
        if agent in (None, asker.agent) and seed in (None, asker.seed)
    }
    if not wanted:
        raise PrunemapError(f"{folder.name}: nothing was found by agent {agent or 'any'} with seed {seed}")
    asker, (best, history) = max(wanted.items(), key=lambda entry: float(entry[1][0]["reward"]))
    return asker, best, history


def _check(folder: RunFolder, asker: Asker, problem: Problem, best: Answer, history: list[Answer]) -> list[Check]:
    """Evaluate again: what the learned policy leads to, where there is one, and the best mapping on record."""
    recorded = Evaluation.from_dict(best)
    checks = [Check("best mapping", recorded, problem.evaluate([recorded.mapping])[0])]
    if (folder.agent_folder(asker) / "agent.json").is_file():
        agent = LearnedAgent.load(folder.agent_folder(asker))
        what, greedy = "policy, rolled out greedily", agent.greedy(problem)
        known = {answer["key"]: answer for answer in history}.get(problem.evaluation_key(greedy))
        if known is None:
            notice(f"  {what}: its mapping is not on record; there is nothing to compare it with")
        else:
            checks.insert(0, Check(what, Evaluation.from_dict(known), problem.evaluate([greedy])[0]))
    return checks


def _retrain_and_measure(problem: Problem, chosen: Evaluation, folder: RunFolder, asker: Asker) -> list[Row]:
    epochs = problem.recipe.full_epochs
    notice(f"retraining the pruned network, then the dense one, {epochs} epochs each")
    masks = make_masks(problem.model, chosen.mapping, problem.network)
    pruned, longer = (full_retrain(problem.model, m, problem.data, problem.recipe, problem.seed) for m in (masks, {}))
    notice("compiling and measuring both, interleaved")
    dense_ms, pruned_ms = measure_models(problem, [problem.model, pruned.model])
    rows = [
        _row("dense", problem, problem.model, problem.dense_accuracy, dense_ms, dense_ms),
        _row("dense, retrained alike", problem, longer.model, longer.validation, None, dense_ms),
        _row("pruned", problem, pruned.model, pruned.validation, pruned_ms, dense_ms)
        | {"predicted_ms": chosen.latency_ms, "rate": chosen.rate},
    ]
    rows[0] |= {"predicted_ms": problem.dense_ms, "rate": 1.0}
    target = folder.replay_folder(asker)
    save_weights(pruned.model, target / "model.safetensors")
    write_json(target / "replay.json", {"evaluation": chosen.to_dict(), "epochs": epochs, "rows": rows})
    return rows


def _row(
    name: str, problem: Problem, model: nn.Module, validation: float, measured: Measurement | None, dense: Measurement
) -> Row:
    row: Row = {"network": name, "test": evaluate_accuracy(model, problem.data.test), "validation": validation}
    return row if measured is None else row | measured_columns(measured, dense)


def _legend(problem: Problem, chosen: Evaluation) -> str:
    threads, isa = latency_settings(problem)
    return (
        f"test and validation: after {problem.recipe.full_epochs} epochs of retraining under the mask; in the search, "
        f"after {problem.recipe.fast_epochs}, validation was {chosen.accuracy or 0.0:.2%}. measured: median ± MAD, "
        f"interleaved, batch 1, {threads} thread(s), {isa}."
    )
