"""HOW zeros run fast: compile_network and the engine behind it."""

from __future__ import annotations

from .build import Step
from .compile import CompiledNetwork, Memory, compile_network, compile_state, isas, resolve_isa

__all__ = ["CompiledNetwork", "Memory", "Step", "compile_network", "compile_state", "isas", "resolve_isa"]
