"""The networks that prunemap knows by name, and those a user names as ``package.module:function``."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from ...pruning.errors import PrunemapError
from ...pruning.registry import Registry
from ..options import call_with_options
from ..randomness import seeded


@dataclass(frozen=True)
class NetworkEntry:
    """One registered network.

    Attributes:
        build: Returns the module; its keyword parameters are the network's options.
        input_shape: (channels, height, width) that it is meant for with default options.
        description: One line for listings.
        small_shape: The same with the option ``small=True``; None when there is no such option.
    """

    build: Callable[..., nn.Module]
    input_shape: tuple[int, int, int]
    description: str
    small_shape: tuple[int, int, int] | None = None


NETWORKS: Registry[NetworkEntry] = Registry("network", __name__)


def build_network(name: str, *, seed: int = 0, **options: Any) -> nn.Module:
    """Build a network with freshly initialised weights.

    Args:
        name: A name of ``NETWORKS``, or ``package.module:function`` for a function of the user's that returns a module.
        seed: Seed of the initial weights. Global random states are restored afterwards.
        **options: The network's own options, for instance ``num_classes``, ``in_channels``, ``width``, ``small``.

    Raises:
        PrunemapError: For an unknown name or option, an invalid value, or a user's function that cannot be imported or
            does not return a module.
    """
    with seeded(seed):
        if ":" in name:
            return _build_foreign(name, options)
        return call_with_options(f"network {name}", NETWORKS[name].build, options)


def default_input_shape(name: str, **options: Any) -> tuple[int, int, int]:
    """(channels, height, width) of the images that a registered network is meant for, given its options.

    Raises:
        PrunemapError: For an unknown name; a user's own network has no default shape.
    """
    if ":" in name:
        raise PrunemapError(f"network {name!r}: a network of your own has no default input shape; give one")
    entry = NETWORKS[name]
    shape = entry.small_shape if options.get("small") and entry.small_shape else entry.input_shape
    return (int(options.get("in_channels", shape[0])), *shape[1:])


def _build_foreign(name: str, options: dict[str, Any]) -> nn.Module:
    function = _import_function(name)
    try:
        inspect.signature(function).bind(**options)
    except TypeError as error:
        raise PrunemapError(f"network {name!r}: does not take these options: {error}") from None
    try:
        module = function(**options)
    except Exception as error:  # whatever a user's code may raise
        raise PrunemapError(f"network {name!r}: raised {type(error).__name__}: {error}") from error
    if not isinstance(module, nn.Module):
        raise PrunemapError(f"network {name!r}: returned {type(module).__name__}, not a torch.nn.Module")
    return module


def _import_function(name: str) -> Callable[..., object]:
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError) as error:
        told = f"network {name!r}: cannot import {module_name!r} ({error}); is it on PYTHONPATH?"
        raise PrunemapError(told) from error
    function: object = getattr(module, attribute, None)
    if not callable(function):
        found = "has no such name" if function is None else f"holds a {type(function).__name__} there"
        raise PrunemapError(f"network {name!r}: module {module_name!r} {found}; expected package.module:function")
    return function
