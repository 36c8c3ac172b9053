"""A search as a Ray Tune experiment. The only file that knows Ray.

One trial per agent and seed asks one actor, the run's memory; what that does not know is evaluated by a pool of worker
actors that all trials share. Trials wait most of the time and reserve next to nothing; every worker reserves one CPU.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

# Read by Ray when it is imported: no statistics sent, no tables of Tune's beside ours, Ctrl-C left to us.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
import torch
from ray import tune
from ray.util import ActorPool
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ..envs import Problem, ProblemSpec
from ..latency import Profile
from ..pruning.errors import PrunemapError
from ..pruning.mapping import Mapping
from .config import RunConfig
from .folder import RunFolder
from .memory import Memory, Question, SearchStopped
from .store import Answer, Asker
from .tools import StoredTools, search_as

Item = TypeVar("Item")
Result = TypeVar("Result")

_OBJECT_STORE_BYTES = 200 * 2**20
_TRIAL_CPUS = 0.001
_RESTARTS = 3
_CONNECT_SECONDS = 5.0


@contextmanager
def ray_session(config: RunConfig) -> Iterator[None]:
    """Have Ray ready: started on this machine for as long as the context lasts, or the cluster at ``ray_address``.

    Raises:
        PrunemapError: When there is no cluster at the address, or it has fewer CPUs than there are workers.
    """
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if config.ray_address is None:
        # One CPU more than the workers': trials and the memory are never kept waiting by them.
        here: dict[str, Any] = {"num_cpus": config.workers + 1, "object_store_memory": _OBJECT_STORE_BYTES}
        # "local", or a RAY_ADDRESS in the environment would be obeyed.
        ray.init(address="local", include_dashboard=False, **here, **quiet)
    else:
        _connect(config.ray_address, quiet)
    try:
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        cpus = int(resources.get("CPU", 0))
        if cpus <= config.workers:
            raise PrunemapError(f"workers: {config.workers} need {config.workers + 1} CPUs, the cluster has {cpus}")
        yield
    finally:
        ray.shutdown()


def map_on_workers(
    config: RunConfig, profile: str, job: Callable[[Problem, Item], Result], items: Sequence[Item]
) -> Iterator[tuple[int, Result]]:
    """Do a job for every item on the workers; only inside ``ray_session``.

    Args:
        config: Its problem is built on every worker.
        profile: Path of the problem's profile.
        job: A function of a module: takes the worker's problem and one item.
        items: What to do it for.

    Yields:
        Position of the item and result of the job, as they are done.
    """
    pool = ActorPool(_start_workers(config, profile))
    yield from pool.map_unordered(lambda worker, numbered: worker.do.remote(job, *numbered), list(enumerate(items)))


class TuneSearch:
    """A search that runs in the background; only inside ``ray_session``."""

    def __init__(self, config: RunConfig, folder: RunFolder, askers: Sequence[Asker]) -> None:
        """Start the workers, wait until they are ready, then start a trial for each of ``askers``.

        Raises:
            PrunemapError: When the workers do not agree with this process on the problem.
        """
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        workers = _start_workers(config, str(folder.profile_file))
        memory: Any = ray.remote(Memory)
        self._memory = memory.options(num_cpus=0, max_concurrency=1000, scheduling_strategy=here).remote(
            folder.database, workers, _is_lost
        )
        self._setup = _Setup(config, folder, self._memory)
        self._tuner = _tuner(self._setup, askers)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._fit, name="tune", daemon=True)
        self._thread.start()

    def running(self, seconds: float) -> bool:
        """Wait for at most ``seconds``; whether the search still runs then."""
        self._thread.join(seconds)
        return self._thread.is_alive()

    def stop(self) -> None:
        """Begin no further evaluation; the search ends when those that run now are stored."""
        self._memory.stop.remote()

    def raise_failure(self) -> None:
        """Raise what ended the experiment as a whole, if anything did; trials that failed have it in their state."""
        if self._failure is not None:
            raise self._failure

    def _fit(self) -> None:
        try:
            results = self._tuner.fit()
            for result in (results[index] for index in range(len(results))):
                if result.error is not None and result.config is not None:
                    asker = Asker(**result.config["trial"])
                    lost = f"its process was lost twice; see {result.path}"
                    ray.get(self._memory.note.remote(asker, "failed", lost))
            ray.get(self._memory.close.remote())
        except BaseException as error:
            self._failure = error


class _Worker:
    """An actor with the problem in memory: dense weights, data and profile are read once."""

    def __init__(self, spec: dict[str, Any], profile: str) -> None:
        torch.set_num_threads(1)
        self._problem = _build(spec, profile)

    def dense_key(self) -> str:
        return self._problem.evaluation_key(Mapping())

    def evaluate(self, mapping: str) -> Answer:
        (evaluation,) = self._problem.evaluate([Mapping.from_json(mapping)])
        return evaluation.to_dict()

    def do(self, job: Callable[[Problem, Any], Any], position: int, item: Any) -> tuple[int, Any]:
        return position, job(self._problem, item)


@dataclass(frozen=True)
class _Setup:
    """What every trial is given."""

    config: RunConfig
    folder: RunFolder
    memory: Any


def _trial(parameters: dict[str, Any], setup: _Setup) -> None:
    """One agent with one seed, as Tune runs it.

    An agent's own error becomes the trial's state, not Tune's: Tune would try again, which is meant for lost processes.
    """
    torch.set_num_threads(1)
    asker = Asker(**parameters["trial"])

    def note(state: str, message: str | None = None) -> None:
        ray.get(setup.memory.note.remote(asker, state, message))
        tune.report({"state": state})

    note("running")
    try:
        _search(asker, setup)
    except SearchStopped:
        note("stopped")
    except Exception as error:
        file = setup.folder.agent_folder(asker) / "error.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(traceback.format_exc(), encoding="utf-8")
        note("failed", _in_a_line(error))
    else:
        note("done")


def _search(asker: Asker, setup: _Setup) -> None:
    problem = _build(setup.config.problem.model_dump(mode="json"), str(setup.folder.profile_file))
    rewards: list[float] = []

    def ask(position: int, questions: Sequence[Question]) -> Sequence[Answer]:
        answers: list[Answer] = ray.get(setup.memory.ask.remote(asker, position, list(questions)))
        rewards.extend(answer["reward"] for answer in answers if answer["failed"] is None)
        best = {"best_reward": max(rewards)} if rewards else {}
        tune.report({"state": "running", "evaluations": position + len(answers), **best})
        return answers

    tools = StoredTools(problem, setup.config.budget, ask)
    search_as(setup.config.agent(asker.agent), asker.seed, problem, tools, setup.folder)


def _tuner(setup: _Setup, askers: Sequence[Asker]) -> tune.Tuner:
    return tune.Tuner(
        tune.with_resources(tune.with_parameters(_trial, setup=setup), {"CPU": _TRIAL_CPUS}),
        param_space={"trial": tune.grid_search([asdict(asker) for asker in askers])},
        tune_config=tune.TuneConfig(max_concurrent_trials=max(4, 2 * setup.config.workers)),
        run_config=tune.RunConfig(
            name=time.strftime("%Y%m%d-%H%M%S"),
            storage_path=str(setup.folder.ray_folder),
            failure_config=tune.FailureConfig(max_failures=1),
            verbose=0,
        ),
    )


def _start_workers(config: RunConfig, profile: str) -> list[Any]:
    kind: Any = ray.remote(num_cpus=1, max_restarts=_RESTARTS, max_task_retries=1)(_Worker)
    workers = [kind.remote(config.problem.model_dump(mode="json"), profile) for _ in range(config.workers)]
    try:
        keys = set(ray.get([worker.dense_key.remote() for worker in workers]))
    except ray.exceptions.RayError as error:
        raise PrunemapError(f"workers cannot build the problem: {str(error).strip().splitlines()[-1]}") from error
    if len(keys) > 1:
        raise PrunemapError(
            "workers do not agree on the dense network: its training gave different bits on different nodes; "
            "share the cache folder between nodes of one kind (PRUNEMAP_CACHE)"
        )
    return workers


def _is_lost(error: Exception) -> bool:
    """Whether an actor died and is not started again; one that is merely being restarted is unavailable for a time."""
    gone, soon_back = ray.exceptions.RayActorError, ray.exceptions.ActorUnavailableError
    return isinstance(error, gone) and not isinstance(error, soon_back)


def _build(spec: dict[str, Any], profile: str) -> Problem:
    return Problem.from_spec(ProblemSpec.from_dict(spec), profile=Profile.load(profile))


def _in_a_line(error: BaseException) -> str:
    """Type and message of what went wrong; of an error in another process, those that it had there."""
    while isinstance(error, ray.exceptions.RayTaskError) and isinstance(error.cause, BaseException):
        error = error.cause
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _connect(address: str, quiet: dict[str, Any]) -> None:
    """Join a running cluster, from one of its nodes.

    Raises:
        PrunemapError: When there is none at the address, which is ``host:port`` or ``auto``.
    """
    host, _, port = address.rpartition(":")
    try:
        if address != "auto":
            # Ray itself would try for minutes.
            socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()
        ray.init(address=address, **quiet)
    except (OSError, RuntimeError, ValueError) as error:
        told = str(error).splitlines()[0]
        hint = "give host:port or auto; clusters that ask for a token need RAY_AUTH_MODE=token"
        raise PrunemapError(f"ray_address {address!r}: no cluster there ({told}); {hint}") from None
