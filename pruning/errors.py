"""The one error that a user's bad input raises."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PrunemapError(ValueError):
    """Bad input, told in one line: what was wrong, where, and what would be right."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> PrunemapError:
    """Return the error for a name that no registry entry has, offering the nearest ones.

    Args:
        kind: What was looked up, for instance ``"scheme"``.
        name: The name that was asked for.
        known: All valid names.
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names)}"
    return PrunemapError(f"unknown {kind} {name!r}; {hint}")
