"""WHAT becomes zero: networks, schemes, mappings and masks."""

from .capture import capture, trace
from .choices import canonical_choice, canonical_mapping, misfit
from .errors import PrunemapError, unknown_name
from .liveness import LayerCount, Live, Liveness, live_channels, live_counts
from .mapping import DENSE, Choice, Mapping
from .masks import Masks, Pruner, apply_mapping, apply_masks, make_masks
from .network import ChannelGroup, LayerSpec, Network, Node
from .registry import Registry
from .schemes import SCHEMES, Scheme, fit_table, kept_weights, mask_from_units, parse_scheme, select_units, unit_norms
from .storage import BlockedStorage, stored_bytes

__all__ = [
    "DENSE",
    "SCHEMES",
    "BlockedStorage",
    "ChannelGroup",
    "Choice",
    "LayerCount",
    "LayerSpec",
    "Live",
    "Liveness",
    "Mapping",
    "Masks",
    "Network",
    "Node",
    "PrunemapError",
    "Pruner",
    "Registry",
    "Scheme",
    "apply_mapping",
    "apply_masks",
    "canonical_choice",
    "canonical_mapping",
    "capture",
    "fit_table",
    "kept_weights",
    "live_channels",
    "live_counts",
    "make_masks",
    "mask_from_units",
    "misfit",
    "parse_scheme",
    "select_units",
    "stored_bytes",
    "trace",
    "unit_norms",
    "unknown_name",
]
