"""Loading and saving state dicts, with errors that name what does not fit."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from ..latency.cache import write_atomically
from ..pruning.errors import PrunemapError

_SHOWN = 3


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load a state dict into ``model``, in place.

    Args:
        model: Its parameters and buffers are overwritten.
        path: A ``.safetensors`` file, or a ``.pth`` / ``.pt`` file that holds nothing but tensors by name.

    Raises:
        PrunemapError: When the file is missing, unreadable, holds other objects than tensors, or does not fit: then the
            first missing, unexpected and misshapen names are told.
    """
    state = _read(Path(path))
    own = model.state_dict()
    # Files older than PyTorch 0.4.1 lack this counter, which has no effect on results here.
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in own]
    misshapen = [
        f"{name} is {tuple(state[name].shape)}, needs {tuple(value.shape)}"
        for name, value in own.items()
        if name in state and state[name].shape != value.shape
    ]
    wrong = {"missing": missing, "unexpected": unexpected, "wrong shape": misshapen}
    if any(wrong.values()):
        told = "; ".join(f"{kind}: {_first(names)}" for kind, names in wrong.items() if names)
        raise PrunemapError(f"weights {path}: do not fit the network; {told}")
    model.load_state_dict(dict(state), strict=False)


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the state dict as safetensors; the file appears whole or not at all."""
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    write_atomically(path, lambda temporary: save_file(state, temporary))


def _read(path: Path) -> Mapping[str, torch.Tensor]:
    if not path.is_file():
        raise PrunemapError(f"weights {path}: no such file; expected a .safetensors or .pth state dict")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise PrunemapError(f"weights {path}: not a readable state dict of tensors ({reason})") from None
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise PrunemapError(f"weights {path}: holds no state dict; save model.state_dict() itself")
    return state


def _first(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more
