"""Options of networks and datasets: checked against the signature of the function that takes them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Field, ValidationError, validate_call

from ..pruning.errors import PrunemapError, unknown_name

T = TypeVar("T")

Positive = Annotated[int, Field(ge=1)]


def option_names(function: Callable[..., Any]) -> tuple[str, ...]:
    """Names of the options that ``function`` takes, in the order of its signature."""
    return tuple(inspect.signature(function).parameters)


def call_with_options(what: str, function: Callable[..., T], options: Mapping[str, Any]) -> T:
    """Call ``function(**options)`` after checking names and values against its annotated signature.

    Args:
        what: Who takes the options, for the message: ``"network resnet8"``.
        function: Its parameters are the options; their annotations say which values are valid.
        options: Option name -> value; values are not converted.

    Raises:
        PrunemapError: For an option that is unknown, missing or of the wrong type or range.
    """
    known = option_names(function)
    for name in options:
        if name not in known:
            raise unknown_name(f"option of {what}:", name, known)
    try:
        result: T = _checked(function)(**options)
    except ValidationError as error:
        first = error.errors()[0]
        option = ".".join(str(part) for part in first["loc"])
        given = "" if first["type"].startswith("missing") else f", got {first['input']!r}"
        message = first["msg"].replace("Input should be", "must be")
        raise PrunemapError(f"{what}, option {option!r}: {message}{given}") from None
    return result


@cache
def _checked(function: Callable[..., Any]) -> Callable[..., Any]:
    return validate_call(config=ConfigDict(strict=True))(function)
