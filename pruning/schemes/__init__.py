"""Schemes: which weights of a layer must become zero together. One family, or a few close ones, per file."""

from .base import SCHEMES, Scheme, parse_scheme
from .table import fit_table
from .units import kept_units, kept_weights, mask_from_units, pools, select_units, unit_norms

__all__ = [
    "SCHEMES",
    "Scheme",
    "fit_table",
    "kept_units",
    "kept_weights",
    "mask_from_units",
    "parse_scheme",
    "pools",
    "select_units",
    "unit_norms",
]
