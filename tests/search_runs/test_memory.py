from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from prunemap.search_runs.memory import Memory, Question, SearchStopped
from prunemap.search_runs.store import Answer, Asker, Store


class Worker:
    """Evaluates in as many turns of the event loop as asked; counts."""

    def __init__(self, log: list[str], turns: int) -> None:
        self.evaluate = self
        self._log, self._turns = log, turns

    async def remote(self, mapping: str) -> Answer:
        self._log.append(mapping)
        for _ in range(self._turns):
            await asyncio.sleep(0)
        if mapping == "broken":
            raise ValueError("the worker could not")
        return {"key": f"key of {mapping}", "reward": float(len(mapping)), "failed": None}


def questions(mappings: Sequence[str]) -> list[Question]:
    return [Question(f"key of {mapping}", mapping) for mapping in mappings]


@pytest.fixture
def log() -> list[str]:
    return []


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "evaluations.sqlite"


class LostError(Exception):
    """The worker's process is gone for good."""


def is_lost(error: Exception) -> bool:
    return isinstance(error, LostError)


class LostWorker(Worker):
    """Is lost at its first question, and stays so."""

    async def remote(self, mapping: str) -> Answer:
        await super().remote(mapping)
        raise LostError


@asynccontextmanager
async def memory_of(database: Path, log: list[str]) -> AsyncIterator[Memory]:
    memory = Memory(database, [Worker(log, turns=3), Worker(log, turns=11)], is_lost)
    yield memory
    await memory.close()


def test_every_mapping_is_evaluated_once_whoever_asks(database: Path, log: list[str]) -> None:
    async def play() -> list[list[Answer]]:
        async with memory_of(database, log) as memory:
            asked = {"one": ["a", "bb", "a"], "two": ["bb", "ccc"], "three": ["a", "ccc"]}
            together = (memory.ask(Asker(agent, 0), 0, questions(mappings)) for agent, mappings in asked.items())
            first = await asyncio.gather(*together)
            return [*first, await memory.ask(Asker("one", 0), 3, questions(["ccc", "a"]))]

    answers = asyncio.run(play())
    assert sorted(log) == ["a", "bb", "ccc"]
    assert [[int(answer["reward"]) for answer in one] for one in answers] == [[1, 2, 1], [2, 3], [1, 3], [3, 1]]
    with Store(database) as store:
        assert set(store.computed().values()) == {1}
        assert len(store.history(Asker("one", 0))) == 5


def test_what_is_remembered_is_not_evaluated_again(database: Path, log: list[str]) -> None:
    async def play(mappings: Sequence[str]) -> list[Answer]:
        async with memory_of(database, log) as memory:
            return await memory.ask(Asker("one", 0), 0, questions(mappings))

    first = asyncio.run(play(["a", "bb"]))
    again = asyncio.run(play(["a", "bb", "ccc"]))
    assert again[:2] == first
    assert log == ["a", "bb", "ccc"]


def test_stopping_keeps_what_had_begun_and_begins_no_more(database: Path, log: list[str]) -> None:
    async def play() -> None:
        async with memory_of(database, log) as memory:
            asking = asyncio.ensure_future(memory.ask(Asker("one", 0), 0, questions(["a", "bb", "ccc", "dddd"])))
            while len(log) < 2:
                await asyncio.sleep(0)
            await memory.stop()
            with pytest.raises(SearchStopped):
                await asking

    asyncio.run(play())
    assert log == ["a", "bb"]
    with Store(database) as store:
        assert set(store.computed()) == {"key of a", "key of bb"}
        status = store.status(Asker("one", 0))
        assert (status.asked, status.answered) == (4, 2)


def test_an_error_reaches_the_asker_and_the_others_go_on(database: Path, log: list[str]) -> None:
    async def play() -> list[Answer]:
        async with memory_of(database, log) as memory:
            failing = asyncio.ensure_future(memory.ask(Asker("one", 0), 0, questions(["broken", "a"])))
            fine = await memory.ask(Asker("two", 0), 0, questions(["bb", "ccc"]))
            with pytest.raises(ValueError, match="the worker could not"):
                await failing
            return fine

    assert len(asyncio.run(play())) == 2
    with Store(database) as store:
        assert set(store.computed()) == {"key of a", "key of bb", "key of ccc"}


def test_asking_otherwise_than_before_is_noted(database: Path, log: list[str]) -> None:
    async def play(mappings: Sequence[str]) -> None:
        async with memory_of(database, log) as memory:
            await memory.ask(Asker("one", 0), 0, questions(mappings))

    asyncio.run(play(["a", "bb"]))
    asyncio.run(play(["a", "ccc"]))
    with Store(database) as store:
        assert store.status(Asker("one", 0)).message == "asked otherwise than before from question 0 on"


def test_a_lost_worker_is_dropped_and_its_question_asked_of_another(database: Path) -> None:
    lost: list[str] = []
    log: list[str] = []

    async def play() -> list[Answer]:
        memory = Memory(database, [LostWorker(lost, turns=1), Worker(log, turns=3)], is_lost)
        answers = await memory.ask(Asker("one", 0), 0, questions(["a", "bb", "ccc"]))
        await memory.close()
        return answers

    assert [answer["key"] for answer in asyncio.run(play())] == ["key of a", "key of bb", "key of ccc"]
    assert lost == ["a"]
    assert sorted(log) == ["a", "bb", "ccc"]


def test_without_workers_every_question_fails_at_once(database: Path, log: list[str]) -> None:
    async def play() -> None:
        memory = Memory(database, [LostWorker(log, turns=1), LostWorker(log, turns=2)], is_lost)
        asking = (memory.ask(Asker(agent, 0), 0, questions([agent, "a", "bb"])) for agent in ("one", "two"))
        found = await asyncio.gather(*asking, return_exceptions=True)
        assert [type(error) for error in found] == [LostError, LostError]
        await memory.close()

    asyncio.run(asyncio.wait_for(play(), 60))
