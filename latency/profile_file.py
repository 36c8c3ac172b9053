"""A profile on disk: one Parquet file, its rows as columns and everything else as JSON in the schema's metadata."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from ..pruning.errors import PrunemapError
from ..pruning.mapping import Choice
from ..pruning.network import Network
from .cache import write_atomically
from .machine import Machine
from .rows import Row, Timing

FORMAT = 6
"""Raised whenever older files can no longer be read."""

_KEY = b"prunemap-profile"
_UNFINISHED = b"prunemap-profile-unfinished"
_SCHEMA = pa.schema(
    [
        pa.field("probe", pa.int64(), nullable=False),
        pa.field("mixed", pa.bool_(), nullable=False),
        pa.field("layer", pa.string(), nullable=False),
        pa.field("scheme", pa.string(), nullable=False),
        pa.field("rate", pa.float64(), nullable=False),
        pa.field("given", pa.int64(), nullable=False),
        pa.field("live_in", pa.int64(), nullable=False),
        pa.field("live_out", pa.int64(), nullable=False),
        pa.field("stored", pa.int64(), nullable=False),
        pa.field("kept", pa.float64(), nullable=False),
        pa.field("ms", pa.float64(), nullable=False),
        pa.field("staging_ms", pa.float64(), nullable=False),
        pa.field("staged", pa.bool_(), nullable=False),
        pa.field("planes", pa.int64(), nullable=False),
        pa.field("together", pa.int64(), nullable=False),
        pa.field("mad_ms", pa.float64(), nullable=False),
        pa.field("samples_ms", pa.list_(pa.float64()), nullable=False),
        pa.field("unstable", pa.bool_(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Header:
    """What a profile holds besides rows; see ``Profile`` for the meaning."""

    format: int
    model: str
    network: Network
    choices: tuple[tuple[str, float], ...]
    threads: int
    seed: int
    dense: Timing
    constant: Timing
    machine: Machine


_HEADER = TypeAdapter(Header)


def write(path: Path, header: Header, rows: tuple[Row, ...]) -> None:
    """Write a profile in one step: no reader ever sees a part of it."""
    table = _table(rows, {_KEY: _HEADER.dump_json(header)})
    write_atomically(path, lambda temporary: pq.write_table(table, temporary))


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Keep the rows of a profile that is not finished."""
    write_atomically(path, lambda temporary: pq.write_table(_table(rows, {_UNFINISHED: b""}), temporary))


def read_rows(path: Path) -> tuple[Row, ...]:
    """What ``write_rows`` kept; nothing where there is no such file or it cannot be read: it is measured again."""
    try:
        table = pq.read_table(path)
        if _UNFINISHED not in (table.schema.metadata or {}):
            return ()
        return tuple(_row(entry) for entry in table.to_pylist())
    except (pa.ArrowException, OSError, ValueError, TypeError, PrunemapError):
        return ()


def _table(rows: Sequence[Row], metadata: dict[bytes, bytes]) -> pa.Table:
    columns = [
        {name: getattr(row, name) for name in _SCHEMA.names if name not in ("scheme", "rate")}
        | {"scheme": row.choice.scheme, "rate": row.choice.rate}
        for row in rows
    ]
    return pa.Table.from_pylist(columns, schema=_SCHEMA.with_metadata(metadata))


def read(path: Path) -> tuple[Header, tuple[Row, ...]]:
    """Read what ``write`` wrote.

    Raises:
        PrunemapError: When there is no such file, or it is not a profile, is damaged, or of another format version.
    """
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise PrunemapError(f"profile {path}: no such file; `prunemap profile --out {path}` makes one") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise PrunemapError(f"profile {path}: not a readable Parquet file ({_first_line(error)})") from None
    metadata = (table.schema.metadata or {}).get(_KEY)
    if metadata is None:
        raise PrunemapError(f"profile {path}: a Parquet file, but not a prunemap profile")
    header = _header(path, metadata)
    if not table.schema.remove_metadata().equals(_SCHEMA):
        raise PrunemapError(f"profile {path}: damaged: its columns are not those of a profile")
    try:
        return header, tuple(_row(entry) for entry in table.to_pylist())
    except ValueError as error:
        raise PrunemapError(f"profile {path}: damaged: {_first_line(error)}") from None


def _header(path: Path, metadata: bytes) -> Header:
    try:
        found = json.loads(metadata).get("format")
        if found != FORMAT:
            raise PrunemapError(f"profile {path}: format {found}, this version reads {FORMAT}; build it again")
        return _HEADER.validate_json(metadata)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise PrunemapError(f"profile {path}: damaged header: {where}: {first['msg']}") from None
    except (AttributeError, json.JSONDecodeError):
        raise PrunemapError(f"profile {path}: damaged header: not a JSON object") from None


def _row(entry: dict[str, Any]) -> Row:
    choice = Choice(entry.pop("scheme"), entry.pop("rate"))
    row = Row(choice=choice, samples_ms=tuple(entry.pop("samples_ms")), **entry)
    numbers = (row.kept, row.ms, row.staging_ms, row.mad_ms, *row.samples_ms)
    if not all(math.isfinite(value) and value >= 0 for value in numbers):
        raise PrunemapError(f"layer {row.layer!r} has a time that is not a finite number of milliseconds")
    return row


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
