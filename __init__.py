"""prunemap: which pruning scheme, block size and rate each layer should get, by measured latency."""

from importlib.metadata import version

import gymnasium

__version__ = version("prunemap")

# Gymnasium imports prunemap to find these; the class is named as text so that this import stays light.
_ENVIRONMENTS = {"prunemap/Mapping-v0": False, "prunemap/MappingLive-v0": True}

for _name, _live in _ENVIRONMENTS.items():
    # This file runs twice where a tool takes the repository's root for a package of its own, as pytest does.
    if _name not in gymnasium.registry:
        _options = {"live": True} if _live else {}
        gymnasium.register(_name, "prunemap.envs.mapping_env:MappingEnv", nondeterministic=_live, kwargs=_options)
