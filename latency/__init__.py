"""What it COSTS here: measuring networks, profiles of their layers, predictions, and other engines to compare with."""

from .bench_kernels import KernelRow, bench_kernels, shares, time_shares
from .cache import cache_folder, exclusive_lock, write_atomically
from .compare_engines import EngineRow, bench_network
from .costs import LayerCost, cost_table
from .machine import Machine, machine, pinned
from .measure import Measurement, Timed, measure, measure_interleaved
from .models import MODELS, LatencyModel, Prediction
from .peers import PEERS, Peer
from .profile import Profile, cached_profile
from .roof import Roof, measure_roof
from .synthetic import synthesise

__all__ = [
    "MODELS",
    "PEERS",
    "EngineRow",
    "KernelRow",
    "LatencyModel",
    "LayerCost",
    "Machine",
    "Measurement",
    "Peer",
    "Prediction",
    "Profile",
    "Roof",
    "Timed",
    "bench_kernels",
    "bench_network",
    "cache_folder",
    "cached_profile",
    "cost_table",
    "exclusive_lock",
    "machine",
    "measure",
    "measure_interleaved",
    "measure_roof",
    "pinned",
    "shares",
    "synthesise",
    "time_shares",
    "write_atomically",
]
