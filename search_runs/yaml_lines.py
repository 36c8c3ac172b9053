"""YAML that remembers on which line each key stands, so that an error can say where."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..pruning.errors import PrunemapError, unknown_name

KeyPath = tuple[int | str, ...]
"""Keys and list positions from the top of the document down."""

_MAX_BYTES = 1_000_000


@dataclass(frozen=True)
class Document:
    """Plain values read from a YAML text, and where each came from.

    Attributes:
        source: Name of the file, for messages.
        values: Nested dictionaries, lists and scalars.
        origins: Path -> ``file:line``.
        flags: Path -> the command-line flag that set the value, in the order given.
    """

    source: str
    values: dict[str, Any]
    origins: dict[KeyPath, str]
    flags: dict[KeyPath, str] = field(default_factory=dict)

    def where(self, path: KeyPath) -> str:
        """Where the value at ``path`` was given; for one that is missing, where its nearest parent was.

        A flag that set a part of the value is blamed rather than the line on which the whole begins.
        """
        if within := [flag for known, flag in self.flags.items() if known[: len(path)] == path]:
            return within[-1]
        known = self.origins | self.flags
        while path and path not in known:
            path = path[:-1]
        return known.get(path, self.source)

    def put(self, dotted: str, value: Any, flag: str) -> None:
        """Set one value as a command-line flag asks.

        Args:
            dotted: Keys joined by dots; an entry of a list is named by its ``name`` or its position, as in
                ``agents.ppo.options.steps``. Mappings that are missing on the way are made.
            value: The new value.
            flag: What to blame when the value turns out to be wrong.

        Raises:
            PrunemapError: When the path leads through a scalar or to a list entry that is not there.
        """
        *parents, last = dotted.split(".")
        here: Any = self.values
        path: KeyPath = ()
        for key in parents:
            step = _step(here, key, flag)
            here = here.setdefault(step, {}) if isinstance(here, dict) else here[step]
            path = (*path, step)
        step = _step(here, last, flag)
        here[step] = value
        path = (*path, step)
        for places in (self.origins, self.flags):
            for known in [known for known in places if known[: len(path)] == path]:
                del places[known]
        self.flags[path] = flag


def read_yaml(path: Path) -> Document:
    """Read a YAML file whose top level is a mapping.

    Raises:
        PrunemapError: For a file that cannot be read, is not YAML, holds a key twice, or is no mapping.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise PrunemapError(f"{path}: larger than {_MAX_BYTES} bytes; this is no configuration")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PrunemapError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, source: str) -> Document:
    """Read YAML text; see ``read_yaml``."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise PrunemapError(f"{source}{line}: not valid YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise PrunemapError(f"{source}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict) or node is None:
        raise PrunemapError(f"{source}: expected keys and values at the top level")
    origins: dict[KeyPath, str] = {}
    _walk(node, (), source, origins)
    return Document(source, values, origins)


def _walk(node: yaml.Node, path: KeyPath, source: str, origins: dict[KeyPath, str]) -> None:
    """Note the line of everything below ``node``; aliases are followed once, where they are defined."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            below = (*path, str(key.value))
            here = f"{source}:{key.start_mark.line + 1}"
            if below in origins:
                raise PrunemapError(f"{here}: key {key.value!r} is given twice (first at {origins[below]})")
            origins[below] = here
            if value.start_mark.index >= key.end_mark.index:
                _walk(value, below, source, origins)
    elif isinstance(node, yaml.SequenceNode):
        for position, item in enumerate(node.value):
            if item.start_mark.index > node.start_mark.index:
                origins[(*path, position)] = f"{source}:{item.start_mark.line + 1}"
                _walk(item, (*path, position), source, origins)


def _step(here: Any, key: str, flag: str) -> int | str:
    """What ``key`` means inside ``here``: itself in a mapping, a position in a list."""
    if isinstance(here, dict):
        return key
    if not isinstance(here, list):
        raise PrunemapError(f"{flag}: {key!r} is looked for inside {here!r}, which has no keys")
    names = [str(item.get("name", n)) if isinstance(item, dict) else str(n) for n, item in enumerate(here)]
    if key in names:
        return names.index(key)
    if key.isdigit() and int(key) < len(here):
        return int(key)
    raise unknown_name(f"entry in {flag}:", key, names)
