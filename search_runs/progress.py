"""What a user sees while something takes long: bars and a live table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Self

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from .store import TrialStatus
from .tables import latency_digits

Report = Callable[[int, int, str], None]
"""Takes units done, units in all, and what is going on."""

_LINE_EVERY = 5.0


def notice(text: str) -> None:
    """Tell the user something, on standard error: standard output is for results."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def progress_bar() -> Iterator[Report]:
    """Offer a function that shows how far work is: a bar per total, or lines now and then."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bars:
        tasks: dict[int, TaskID] = {}

        def report(done: int, total: int, text: str) -> None:
            if total not in tasks:
                tasks[total] = bars.add_task(text, total=total)
            bars.update(tasks[total], completed=done, description=text)

        yield report


class _Lines:
    """A line at the start and every few seconds."""

    def __init__(self) -> None:
        self._next = 0.0

    def __call__(self, done: int, total: int, text: str) -> None:
        if time.monotonic() >= self._next:
            notice(f"{text}: {done}/{total}")
            self._next = time.monotonic() + _LINE_EVERY


class SearchProgress:
    """A context that shows the trials of a search."""

    def __init__(self, title: str, budget: int) -> None:
        """Show ``title`` above; ``budget`` is the number of evaluations that each trial may ask for."""
        self._title = title
        self._budget = budget
        self._began = time.monotonic()
        self._next = 0.0
        self._live = (
            Live(console=Console(stderr=True), auto_refresh=False, transient=True) if sys.stderr.isatty() else None
        )

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live:
            self._live.stop()

    def update(self, statuses: Sequence[TrialStatus], last: bool = False) -> None:
        """Show how far the trials are; ``last`` shows it even when the last line was written just before."""
        if self._live:
            self._live.update(self._table(statuses), refresh=True)
        elif last or time.monotonic() >= self._next:
            notice(self._line(statuses))
            self._next = time.monotonic() + _LINE_EVERY

    def tell(self, text: str) -> None:
        """Write a line above the table."""
        if self._live:
            self._live.console.print(Text(text))
        else:
            notice(text)

    def _elapsed(self) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
        return f"{minutes}:{seconds:02d}"

    def _line(self, statuses: Sequence[TrialStatus]) -> str:
        parts = (
            f"{status.asker} {status.answered}/{self._budget}{_best_in_words(status)}"
            + (f" {status.state}" if status.state not in ("waiting", "running") else "")
            for status in statuses
        )
        return f"[{self._elapsed()}] {'; '.join(parts)}"

    def _table(self, statuses: Sequence[TrialStatus]) -> Table:
        table = Table(title=f"{self._title}  {self._elapsed()}", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
        for heading in ("trial", "state"):
            table.add_column(heading)
        for heading in ("answered", "best reward", "accuracy", "latency", "of dense", "rate"):
            table.add_column(heading, justify="right")
        for status in statuses:
            best = status.best
            cells = ["-"] * 5 if best is None else [
                f"{best['reward']:.4f}",
                "-" if best["accuracy"] is None else f"{best['accuracy']:.2%}",
                f"{best['latency_ms']:.{latency_digits(best['latency_ms'])}f} ms",
                f"{best['latency_fraction']:.0%}",
                f"{best['rate']:.1f}x",
            ]  # fmt: skip
            table.add_row(
                str(status.asker),
                Text(status.state, _COLOURS.get(status.state, "")),
                f"{status.answered}/{self._budget}",
                *cells,
            )
        return table


_COLOURS = {"running": "cyan", "done": "green", "stopped": "yellow", "failed": "red"}


def _best_in_words(status: TrialStatus) -> str:
    return f" (best {status.best['reward']:.4f})" if status.best else ""
