"""Whom every agent of a run asks: known answers at once, the others from workers, each evaluated once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .store import Answer, Asker, Store


class SearchStopped(Exception):  # it ends a search as asked; nothing went wrong
    """The user stopped the search; what is known is kept."""


@dataclass(frozen=True)
class Question:
    """A mapping that an agent asks about.

    Attributes:
        key: ``Problem.evaluation_key`` of the mapping.
        mapping: The mapping as JSON.
    """

    key: str
    mapping: str


class Memory:
    """Answers questions; the one writer of a run's store.

    A mapping that is being evaluated for one trial is not evaluated again for another. All methods are coroutines of
    one event loop: tune.py makes it a Ray actor.
    """

    def __init__(self, database: Path, workers: Sequence[Any], is_lost: Callable[[Exception], bool]) -> None:
        """Open the store.

        Args:
            database: The run's ``evaluations.sqlite``.
            workers: Actor handles; ``worker.evaluate.remote(mapping)`` is an awaitable evaluation.
            is_lost: Whether an error of an evaluation means that its worker is gone for good.
        """
        self._store = Store(database)
        self._idle: asyncio.Queue[Any] = asyncio.Queue()
        for worker in workers:
            self._idle.put_nowait(worker)
        self._left = len(workers)
        self._is_lost = is_lost
        self._pending: dict[str, asyncio.Future[Answer]] = {}
        self._stopping = False

    async def ask(self, asker: Asker, position: int, questions: Sequence[Question]) -> list[Answer]:
        """Answer one trial's next questions, in order.

        Args:
            asker: The trial.
            position: How many questions it asked before.
            questions: What it asks now.

        Raises:
            SearchStopped: When the search was stopped; what had begun is finished and stored first.
        """
        if not self._store.asked(asker, position, [question.key for question in questions]):
            await self.note(asker, "running", f"asked otherwise than before from question {position} on")
        answers = await asyncio.gather(*map(self._answer, questions), return_exceptions=True)
        found: list[Answer] = []
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
            found.append(answer)
        return found

    async def note(self, asker: Asker, state: str, message: str | None = None) -> None:
        """Keep what became of a trial; see ``TrialStatus``."""
        self._store.set_state(asker, state, message)

    async def stop(self) -> None:
        """Begin no further evaluation."""
        self._stopping = True

    async def close(self) -> None:
        """Close the store; nothing can be asked any more."""
        self._store.close()

    async def _answer(self, question: Question) -> Answer:
        if known := self._store.answer(question.key):
            return known
        if question.key not in self._pending:
            self._pending[question.key] = asyncio.ensure_future(self._evaluate(question))
        return await self._pending[question.key]

    async def _evaluate(self, question: Question) -> Answer:
        try:
            while (answer := await self._by_a_worker(question)) is None:
                pass
            return answer
        finally:
            del self._pending[question.key]

    async def _by_a_worker(self, question: Question) -> Answer | None:
        """The answer of the next idle worker; None when that was lost and others are left."""
        worker = await self._idle.get()
        try:
            if self._stopping:
                raise SearchStopped
            started = time.time()
            answer: Answer = await worker.evaluate.remote(question.mapping)
            self._store.record(answer, started, time.time())
        except Exception as error:
            if self._is_lost(error) and self._left > 1:
                self._left -= 1
                return None
            # The last one is kept even when it is lost: who waits for a worker gets its error, and waits no longer.
            self._idle.put_nowait(worker)
            raise
        self._idle.put_nowait(worker)
        return answer
