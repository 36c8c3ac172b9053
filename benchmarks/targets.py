"""What tables of targets have in common: a line says what is measured, how much it should reach, and what was found.

Figures come from `prunemap bench` commands, or from the library where a command would not do. Their JSON and what they
told meanwhile are kept in a folder. A line that fails says why, and the others follow.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Figures = dict[str, float]
"""What was measured, by name; the first is held against the bound."""

LIMIT_SECONDS = 2 * 3600.0


@dataclass
class Output:
    """Where what lines rest on is kept."""

    folder: Path = Path(__file__).parents[1] / "build" / "bench"

    def file(self, name: str) -> Path:
        """A file in the folder, which is there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / name


OUTPUT = Output()


@dataclass(frozen=True)
class Target:
    """One line: what is measured, the bound if there is one, whether larger is better, and how to get the figures."""

    what: str
    bound: float | None
    at_least: bool
    measured: Callable[[], Figures]

    def line(self) -> str:
        """As a row of a markdown table; of a failure, its last line."""
        reach = "-" if self.bound is None else f"{'>=' if self.at_least else '<='} {self.bound:g}"
        try:
            found = self.measured()
        except Exception as error:  # whatever it was, the other lines are worth having
            reason = (str(error).strip().splitlines() or [""])[-1].replace("|", "/")
            return f"| {self.what} | {reach} | {type(error).__name__}: {reason} | no |"
        (first, *others) = found.items()
        told = f"{first[1]:.3g}" + "".join(f"; {name} {value:.3g}" for name, value in others)
        return f"| {self.what} | {reach} | {told} | {self._met(first[1])} |"

    def _met(self, value: float) -> str:
        if self.bound is None:
            return "-"
        return "yes" if (value >= self.bound if self.at_least else value <= self.bound) else "no"


def keep(name: str, found: Any) -> None:
    """Write what a line rests on to the folder, as JSON."""
    OUTPUT.file(f"{name}.json").write_text(json.dumps(found, indent=1))


def bench(*words: str) -> list[Row]:
    """Rows of a `prunemap bench` command; what it tells meanwhile goes to a file.

    Raises:
        RuntimeError: When it fails, with the last line that it told, or takes too long.
    """
    name = "-".join(word.lstrip("-").replace(":", "").replace(",", "_") for word in words)
    command = [sys.executable, "-m", "prunemap.search_runs.cli", "bench", *words, "--format", "json"]
    log, start = OUTPUT.file(f"{name}.log"), time.monotonic()
    print(f"... prunemap bench {' '.join(words)}", end="", file=sys.stderr, flush=True)
    with log.open("w", encoding="utf-8") as told:
        try:
            done = subprocess.run(
                command, check=False, stdout=subprocess.PIPE, stderr=told, text=True, timeout=LIMIT_SECONDS
            )
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"not done after {LIMIT_SECONDS:.0f} s") from None
    print(f" {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    if done.returncode:
        last = (log.read_text(encoding="utf-8").strip().splitlines() or ["no word"])[-1]
        raise RuntimeError(f"exit status {done.returncode}: {last}")
    rows: list[Row] = json.loads(done.stdout)
    keep(name, {"command": ["prunemap", "bench", *words], "rows": rows})
    return rows


def bench_once(*words: str) -> list[Row]:
    """As ``bench``, but each command runs once, whether it fails or not: several lines ask for the same."""
    found = _tried(*words)
    if isinstance(found, RuntimeError):
        raise found
    return found


@cache
def _tried(*words: str) -> list[Row] | RuntimeError:
    try:
        return bench(*words)
    except RuntimeError as error:
        return error


def command_line(description: str | None) -> argparse.ArgumentParser:
    """The options that all tables have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="WORD", help="lines that contain this")
    parser.add_argument("--out", type=Path, default=OUTPUT.folder, metavar="FOLDER", help="where JSON and logs go")
    return parser


def print_table(targets: Iterable[Target], args: argparse.Namespace) -> None:
    """Print the lines that were asked for; every one as soon as it is known."""
    OUTPUT.folder, start = args.out, time.monotonic()
    print("| what | reach | measured | met |\n|---|---|---|---|", flush=True)
    for target in targets:
        if args.only in target.what:
            print(target.line(), flush=True)
    print(f"{time.monotonic() - start:.0f} s", file=sys.stderr)
