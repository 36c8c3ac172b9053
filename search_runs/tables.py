"""Rows shown as a table, as JSON or as CSV."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

Row = dict[str, Any]
FORMATS = ("table", "json", "csv")
_WIDE = 200
"""Columns of a table that does not go to a terminal: nothing is cut off in files and pipes."""


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        key: Key of its values in the rows, and its name in JSON and CSV.
        title: Its heading in a table.
        form: Makes a cell of the value and the row; a missing value (None) is shown as a dash without asking it.
        right: Whether cells are aligned to the right.
    """

    key: str
    title: str
    form: Callable[[Any, Row], str] = lambda value, row: str(value)
    right: bool = False


def text(key: str, title: str | None = None) -> Column:
    """A column of words."""
    return Column(key, title or key)


def number(key: str, title: str, spec: str = "", unit: str = "") -> Column:
    """A column of numbers, written with a format specification such as ``.2f``."""
    return Column(key, title, lambda value, row: f"{value:{spec}}{unit}", right=True)


def percent(key: str, title: str, digits: int = 2) -> Column:
    """A column of fractions, shown in percent."""
    return Column(key, title, lambda value, row: f"{100 * value:.{digits}f} %", right=True)


def milliseconds(key: str, title: str, mad: str | None = None) -> Column:
    """Latencies in ms with four significant digits; ``value ± MAD`` where the key of the spread is given."""

    def form(value: float, row: Row) -> str:
        digits = latency_digits(value)
        return f"{value:.{digits}f}" + (f" ± {row[mad]:.{digits}f}" if mad else "")

    return Column(key, title, form, right=True)


def latency_digits(ms: float) -> int:
    """Digits behind the point that show a latency with four significant ones; small networks take microseconds."""
    return max(0, 3 - math.floor(math.log10(ms))) if ms > 0 else 3


def remark(words: str) -> None:
    """Print what explains a table below it."""
    console().print(words, markup=False)


def show(rows: Sequence[Row], columns: Sequence[Column], form: str = "table", title: str | None = None) -> None:
    """Print rows to standard output.

    Args:
        rows: JSON and CSV write all their keys; a table only those that have a column.
        columns: Columns of the table, in order.
        form: One of ``FORMATS``.
        title: Stands above a table.
    """
    {"table": _table, "json": _json, "csv": _csv}[form](rows, columns, title)


def console() -> Console:
    """A console for standard output, wide when that is no terminal."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE)


def _table(rows: Sequence[Row], columns: Sequence[Column], title: str | None) -> None:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in columns:
        table.add_column(column.title, justify="right" if column.right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(column, row) for column in columns))
    console().print(table)


def _cell(column: Column, row: Row) -> str:
    value = row.get(column.key)
    return "-" if value is None else column.form(value, row).replace("[", r"\[")


def _json(rows: Sequence[Row], columns: Sequence[Column], title: str | None) -> None:
    print(json.dumps(list(rows), indent=2))


def _csv(rows: Sequence[Row], columns: Sequence[Column], title: str | None) -> None:
    keys = list(dict.fromkeys(key for row in rows for key in row)) or [column.key for column in columns]
    writer = csv.DictWriter(sys.stdout, keys, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _flat(value) for key, value in row.items()} for row in rows)


def _flat(value: Any) -> Any:
    """A value that fits a cell of CSV: what has parts is written as JSON."""
    return json.dumps(value) if isinstance(value, dict | list) else value
