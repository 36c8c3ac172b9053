"""The commands ``search`` and ``resume``."""

from __future__ import annotations

import os
import shlex
import signal
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, Self

from rich.console import Console

from ..envs import Problem
from ..latency import Profile, machine
from ..pruning.mapping import Mapping
from .config import RunConfig, load_config, parse_override
from .folder import RunFolder, create_run, open_run, refuse_existing, refuse_foreign, write_json, write_text
from .progress import SearchProgress, notice, progress_bar
from .results import best_of, print_statuses, trial_statuses, versions
from .store import Asker, Store, TrialStatus
from .tables import latency_digits

_POLL_SECONDS = 0.5
_WARM_UP_SECONDS = 5.0
FAILED, INTERRUPTED = 1, 130
"""Exit status when a trial failed; after Ctrl-C, as shells have it."""


def search(args: Namespace) -> int:
    """Start a search."""
    config = load_config(args.config, overrides(args), args.agents).resolved()
    if not args.dry_run:
        refuse_existing(args.runs, config.name, args.fresh)
    problem = build_problem(config)
    _print_plan(config, problem)
    if args.dry_run:
        print(config.to_yaml(), end="")
        return 0
    folder = create_run(args.runs, config.name, args.fresh)
    _describe(folder, config, problem)
    return _run(folder, config, problem)


def resume(args: Namespace) -> int:
    """Go on with a search that was stopped or killed: its agents are run again and get the remembered answers."""
    folder = open_run(args.run_name, args.runs)
    refuse_foreign(folder)
    config = load_config(str(folder.config_file), overrides(args))
    profile = Profile.load(folder.profile_file)
    return _run(folder, config, build_problem(config, profile))


def overrides(args: Namespace) -> list[tuple[str, Any, str]]:
    """What a command's flags change in the configuration; flags that it does not have change nothing."""
    keys = ("name", "seeds", "workers", "budget.evaluations", "ray_address", "problem.latency.profile")
    flags = {key.rpartition(".")[2]: key for key in keys}
    given = [(key, getattr(args, flag, None), f"--{flag.replace('_', '-')}") for flag, key in flags.items()]
    settings = [parse_override(text) for text in getattr(args, "set", ())]
    return [entry for entry in given if entry[1] is not None] + settings


def build_problem(config: RunConfig, profile: Profile | None = None) -> Problem:
    """The problem of a configuration, with a progress bar where something has to be trained or measured first."""
    with progress_bar() as report:
        return Problem.from_spec(config.problem, profile=profile, progress=report)


def _run(folder: RunFolder, config: RunConfig, problem: Problem) -> int:
    with folder.locked():
        with Store(folder.database) as store:
            todo = [status.asker for status in trial_statuses(store, config) if status.state != "done"]
        if todo:
            _search(folder, config, todo)
        else:
            notice(f"{folder.name}: every trial is done; nothing to resume")
        with Store(folder.database) as store:
            statuses = trial_statuses(store, config)
        write_json(folder.best_file, best_of(statuses))
    print_statuses(statuses, config.budget.evaluations)
    return _conclude(folder, statuses)


def _search(folder: RunFolder, config: RunConfig, todo: Sequence[Asker]) -> None:
    """Run the trials that are left, and show how far they are."""
    # Ray takes seconds to import: not before the problem is known to be right.
    from .tune import TuneSearch, ray_session

    notice(f"starting Ray and {config.workers} worker(s)")
    with _Interrupts(folder) as interrupts, ray_session(config):
        running = TuneSearch(config, folder, todo)
        progress = SearchProgress(config.name, config.budget.evaluations)
        with progress, Store(folder.database, readonly=True) as store:
            interrupts.tell = progress.tell
            while running.running(_POLL_SECONDS):
                if interrupts.asked:
                    running.stop()
                progress.update(trial_statuses(store, config))
            progress.update(trial_statuses(store, config), last=True)
            interrupts.tell = notice
        running.raise_failure()


class _Interrupts:
    """While active, Ctrl-C (or SIGTERM) once asks the search to stop, twice ends the process on the spot.

    Attributes:
        asked: Whether it was asked to stop.
        tell: How the user is told.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.asked = False
        self.tell: Callable[[str], None] = notice
        self._folder = folder
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            self.tell(f"aborted; go on with: {resume_command(self._folder)}")
            Console(stderr=True).show_cursor(True)
            os._exit(128 + number)
        self.asked = True
        self.tell("stopping: what is being evaluated is finished and stored; again to abort at once")


def resume_command(folder: RunFolder) -> str:
    """What to type to go on with a run."""
    return f"prunemap resume {shlex.quote(folder.name)}"


def _conclude(folder: RunFolder, statuses: Sequence[TrialStatus]) -> int:
    """Say what to do next; return the exit status."""
    failed = [status for status in statuses if status.state == "failed"]
    for status in failed:
        notice(f"trial {status.asker} failed: {status.message} (see {folder.agent_folder(status.asker)}/error.txt)")
    if all(status.state == "done" for status in statuses):
        notice(f"next: prunemap compare {folder.name}; prunemap replay {folder.name}")
        return 0
    notice(f"what was found is kept; go on with: {resume_command(folder)}")
    return FAILED if failed else INTERRUPTED


def _describe(folder: RunFolder, config: RunConfig, problem: Problem) -> None:
    """Write down what the run depends on, before it begins; a folder with a configuration has all of it."""
    write_json(folder.machine_file, {**machine(config.problem.latency.isa).to_dict(), "versions": versions()})
    if isinstance(problem.profile, Profile):
        problem.profile.save(folder.profile_file)
    write_text(folder.config_file, config.to_yaml())


def _seconds_of_an_evaluation(problem: Problem) -> float:
    """Time a fast retraining of the dense network; a short one twice, as the first also warms torch up."""
    start = time.perf_counter()
    problem.accuracy(Mapping(), 0)
    first = time.perf_counter()
    if first - start < _WARM_UP_SECONDS:
        problem.accuracy(Mapping(), 0)
        return time.perf_counter() - first
    return first - start


def _print_plan(config: RunConfig, problem: Problem) -> None:
    layers, choices = len(problem.network.layers), len(problem.catalogue)
    trials = len(config.agents) * len(config.seeds)
    total = trials * config.budget.evaluations
    each = _seconds_of_an_evaluation(problem)
    minutes, seconds = divmod(round(total * each / config.workers), 60)
    notice(
        f"{config.name}: {config.problem.network.name} on {config.problem.data.name}, {layers} layers, "
        f"{choices} choices; dense: {problem.dense_accuracy:.2%} of validation images, "
        f"{problem.dense_ms:.{latency_digits(problem.dense_ms)}f} ms\n"
        f"{len(config.agents)} agent(s) x {len(config.seeds)} seed(s) x {config.budget.evaluations} evaluations "
        f"= {total}, {each:.2f} s each on {config.workers} worker(s): about {minutes}:{seconds:02d} min at most; "
        "repeats are free"
    )
