"""Whole runs, searched by the program in processes of its own: Ray takes seconds to start, so they are few."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from prunemap.envs import Evaluation
from prunemap.kernels import CompiledNetwork, compile_network
from prunemap.latency import cache_folder
from prunemap.pruning.mapping import Mapping
from prunemap.search_runs import compare
from prunemap.search_runs.folder import RunFolder
from prunemap.search_runs.locks import is_held
from prunemap.search_runs.search import build_problem
from prunemap.search_runs.store import Asker, Store

pytestmark = pytest.mark.slow

Command = Callable[..., tuple[int, str, str]]
Start = Callable[..., "subprocess.Popen[str]"]
TRIALS = [Asker("reinforce", 0), Asker("random", 0)]


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, to be spoiled."""
    return Path(shutil.copytree(finished, tmp_path / "runs" / "tiny"))


def histories(run: Path) -> dict[Asker, list[Evaluation]]:
    with Store(run / "evaluations.sqlite", readonly=True) as store:
        return {asker: [Evaluation.from_dict(answer) for answer in store.history(asker)] for asker in TRIALS}


def rows(run: Path) -> dict[str, tuple[Any, ...]]:
    """Key -> everything on record about it."""
    db = sqlite3.connect(f"{(run / 'evaluations.sqlite').as_uri()}?mode=ro", uri=True)
    found = {row[0]: row for row in db.execute("SELECT key, answer, started, finished, computed FROM evaluations")}
    db.close()
    return found


def stored(run: Path) -> int:
    """How many evaluations are on record; none before the record exists."""
    try:
        return len(rows(run))
    except sqlite3.OperationalError:
        return 0


def wait_for(reached: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait until a search has come so far; it must not end before."""
    deadline = time.monotonic() + 240
    while not reached():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_finished_run_is_self_describing(finished: Path) -> None:
    folder = RunFolder(finished)
    assert folder.config().agent("random").options == {"batch": 5, "focus": 0.5}
    assert {"cpu", "isa", "kernels", "versions"} <= set(json.loads(folder.machine_file.read_text()))
    assert not (finished / "evaluations.sqlite-wal").exists(), "closed: one file"
    assert all(computed == 1 for *_, computed in rows(finished).values())
    best = json.loads(folder.best_file.read_text())
    rewards = {str(asker): max(entry.reward for entry in found) for asker, found in histories(finished).items()}
    assert {name: trial["evaluation"]["reward"] for name, trial in best["trials"].items()} == rewards
    assert rewards[best["best"]] == max(rewards.values())
    assert (folder.agent_folder(TRIALS[0]) / "policy.safetensors").is_file()
    assert len(histories(finished)[TRIALS[0]]) == 14


def test_a_killed_search_resumes_to_the_same_end_and_repeats_nothing(
    finished: Path, start: Start, tmp_path: Path
) -> None:
    """SIGKILL halfway; then resumed: the same questions, answers and best mappings as the uninterrupted run."""
    run = tmp_path / "runs" / "tiny"
    (tmp_path / "tiny.yaml").write_text((finished.parents[1] / "tiny.yaml").read_text())
    search = start("search", "tiny.yaml", cwd=tmp_path)
    half = len(rows(finished)) // 2
    wait_for(lambda: stored(run) >= half, search)
    os.kill(search.pid, signal.SIGKILL)
    search.communicate()
    resume = start("resume", "tiny", cwd=tmp_path)
    before = rows(run)
    output, errors = resume.communicate(timeout=300)
    assert resume.returncode == 0, output + errors

    after = rows(run)
    assert len(before) < len(after)
    assert {key: after[key] for key in before} == before, "what was finished stays as it was: nothing is computed again"
    assert all(computed == 1 for *_, computed in after.values())
    assert histories(run) == histories(finished)
    mine, theirs = (json.loads((path / "best.json").read_text()) for path in (run, finished))
    for trial in theirs["trials"]:
        assert mine["trials"][trial]["evaluation"]["mapping"] == theirs["trials"][trial]["evaluation"]["mapping"]


def test_a_stopped_search_and_a_broken_agent(start: Start, finished: Path, tmp_path: Path) -> None:
    """Ctrl-C ends a search in good order; an agent that fails does so visibly, and does not end the others."""
    (tmp_path / "tiny.yaml").write_text((finished.parents[1] / "tiny.yaml").read_text())
    words = ("--agents", "ppo,random", "--evaluations", 1_000_000, "--set", "agents.ppo.options={lr: 1.0e+38}")
    search = start("search", "tiny.yaml", *words, cwd=tmp_path)
    run = tmp_path / "runs" / "tiny"
    error_file = run / "agents" / "ppo-0" / "error.txt"
    wait_for(lambda: stored(run) >= 3 and error_file.is_file(), search)
    search.send_signal(signal.SIGINT)
    output, errors = search.communicate(timeout=120)
    assert search.returncode == 1, output + errors
    assert "stopping: what is being evaluated is finished and stored" in errors
    assert "trial ppo-0 failed: RuntimeError" in errors, "its first step is too long for a float"
    assert errors.strip().splitlines()[-1].endswith("go on with: prunemap resume runs/tiny")
    assert "Traceback" in error_file.read_text()
    with Store(run / "evaluations.sqlite", readonly=True) as store:
        states = [store.status(Asker(agent, 0)).state for agent in ("ppo", "random")]
    assert states == ["failed", "stopped"]


def test_a_finished_run_is_not_searched_again(finished: Path, command: Command) -> None:
    before = rows(finished)
    status, output, errors = command("resume", finished)
    assert status == 0
    assert "nothing to resume" in errors
    assert "reinforce-0" in output
    assert rows(finished) == before


def test_an_existing_run_is_kept(copied: Path, command: Command) -> None:
    config = copied / "config.yaml"
    status, _, errors = command("search", config, "--runs", copied.parent)
    assert status == 2
    assert "prunemap resume" in errors
    assert stored(copied) > 0


@pytest.mark.parametrize("spoil", ["everybody may write", "another process searches"])
def test_resume_refuses(copied: Path, command: Command, spoil: str) -> None:
    if spoil == "everybody may write":
        copied.chmod(0o777)
        status, _, errors = command("resume", copied)
        told = "everybody may write"
    else:
        with RunFolder(copied).locked():
            status, _, errors = command("resume", copied)
        told = f"process {os.getpid()} is searching"
    assert status == 2
    assert told in errors


def test_status_tells_a_killed_search(copied: Path, command: Command) -> None:
    with Store(copied / "evaluations.sqlite") as store:
        store.set_state(TRIALS[0], "running")
    states = [row["state"] for row in json.loads(command("status", copied, "--format", "json")[1])]
    assert states == ["interrupted", "done"]
    with RunFolder(copied).locked():
        states = [row["state"] for row in json.loads(command("status", copied, "--format", "json")[1])]
    assert states == ["running", "done"]


def test_list_runs(finished: Path, command: Command) -> None:
    (row,) = json.loads(command("list", "runs", "--runs", finished.parent, "--format", "json")[1])
    assert (row["run"], row["trials done"]) == ("tiny", "2 of 2")


def test_compare_in_every_format(finished: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    places: list[tuple[int, bool]] = []

    def compiling(*args: Any) -> CompiledNetwork:
        places.append((len(os.sched_getaffinity(0)), is_held(cache_folder() / "measuring.lock")))
        return compile_network(*args)

    monkeypatch.setattr(compare, "compile_network", compiling)
    status, output, errors = command("compare", finished, "--format", "json")
    assert status == 0, errors
    assert places == [(1, True)] * 3, "kernels are chosen where they are measured"
    found = {row["method"]: row for row in json.loads(output)}
    assert list(found) == ["dense", "reinforce-0", "random-0"]
    assert found["dense"]["speedup"] == 1.0
    problem = build_problem(RunFolder(finished).config())
    assert found["dense"]["accuracy"] == problem.accuracy(Mapping(), 0) != problem.dense_accuracy
    for asker, history in histories(finished).items():
        row = found[str(asker)]
        assert row["evaluations"] == len(history)
        assert row["epochs"] == sum(entry.epochs for entry in history)
        assert row["seconds"] == pytest.approx(sum(entry.seconds for entry in history))
        assert row["reward"] == max(entry.reward for entry in history)
        assert row["speedup"] == found["dense"]["measured_ms"] / row["measured_ms"]
        assert row["mad_ms"] >= 0.0
    table = command("compare", finished)[1]
    assert all(word in table for word in ("speed-up", "±", "random-0", "on the same kernels"))
    sheet = list(csv.DictReader(io.StringIO(command("compare", finished, "--format", "csv")[1])))
    assert [row["method"] for row in sheet] == list(found)


@pytest.mark.parametrize("agent", ["reinforce", "random"])
def test_replay_comes_back_to_the_bit(copied: Path, command: Command, agent: str) -> None:
    status, output, errors = command("replay", copied, "--agent", agent, "--format", "json")
    assert status == 0, errors
    assert "best mapping: " in errors
    assert ("policy, rolled out greedily: " in errors) == (agent == "reinforce")
    assert "DIFFERS" not in errors
    dense, longer, pruned = json.loads(output)
    assert dense["network"] == "dense"
    assert longer.get("measured_ms") is None
    assert 0.0 < pruned["test"] <= 1.0
    assert pruned["speedup"] == dense["measured_ms"] / pruned["measured_ms"]
    assert pruned["predicted_ms"] > 0.0
    weights = load_file(copied / "replay" / f"{agent}-0" / "model.safetensors")
    layers = [value for value in weights.values() if value.ndim > 1]
    kept = sum(int((value != 0).sum()) for value in layers)
    record = json.loads((copied / "replay" / f"{agent}-0" / "replay.json").read_text())
    assert record["evaluation"]["kept_weights"] <= kept <= sum(value.size for value in layers)
    assert (kept < sum(value.size for value in layers)) == bool(record["evaluation"]["mapping"])


def test_replay_looks_up_what_the_policy_leads_to(copied: Path, command: Command) -> None:
    """Wherever it stands among the questions; a policy's mapping that nobody asked about is told."""
    greedy = histories(copied)[TRIALS[0]][-1]
    others = [entry for entry in histories(copied)[TRIALS[0]] if entry.key != greedy.key]
    for keys, told in (
        ([greedy.key, *(entry.key for entry in others)], "policy, rolled out greedily: accuracy"),
        ([entry.key for entry in others], "policy, rolled out greedily: its mapping is not on record"),
    ):
        with closing(sqlite3.connect(copied / "evaluations.sqlite")) as db, db:
            db.execute("DELETE FROM asks WHERE agent = 'reinforce'")
        with Store(copied / "evaluations.sqlite") as store:
            store.asked(TRIALS[0], 0, keys)
        status, _, errors = command("replay", copied, "--agent", "reinforce")
        assert status == 0, errors
        assert told in errors


def test_replay_fails_when_the_bits_differ(copied: Path, command: Command) -> None:
    """A record that cannot be repeated is told, and nothing is built on it."""
    db = sqlite3.connect(copied / "evaluations.sqlite")
    db.execute(
        "UPDATE evaluations SET answer = json_set(answer, '$.accuracy', json_extract(answer, '$.accuracy') + 1e-9)"
    )
    db.commit()
    db.close()
    status, output, errors = command("replay", copied)
    assert status == 1
    assert output == ""
    assert "DIFFERS: accuracy was" in errors
    assert not (copied / "replay").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--agent", "ppo"], "unknown agent of this run: 'ppo'"),
        (["--agent", "random", "--seed", "7"], "nothing was found by agent random with seed 7"),
    ],
)
def test_replay_of_what_is_not_there(finished: Path, command: Command, words: list[str], told: str) -> None:
    status, _, errors = command("replay", finished, *words)
    assert status == 2
    assert told in errors


def test_replay_refuses_weights_that_do_not_fit(copied: Path, command: Command) -> None:
    file = copied / "agents" / "reinforce-0" / "policy.safetensors"
    weights = load_file(file)
    name = sorted(weights)[0]
    save_file(weights | {name: weights[name][:1]}, file)
    status, _, errors = command("replay", copied, "--agent", "reinforce")
    assert status == 2
    assert name in errors.strip().splitlines()[-1]


def test_bench_signal(start: Start, finished: Path) -> None:
    config = finished.parents[1] / "tiny.yaml"
    words = ("--mappings", 10, "--replicates", 2, "--workers", 1, "--format", "json")
    bench = start("bench", "signal", config, *words, cwd=config.parent)
    output, errors = bench.communicate(timeout=300)
    assert bench.returncode == 0, output + errors
    (row,) = json.loads(output)
    assert row["mappings"] == 10
    assert -1.0 <= row["tau_low"] <= row["tau"] <= row["tau_high"] <= 1.0
    assert row["noise"] >= 0.0
