"""Other engines that run the same network, to compare with. One engine per file; all are optional."""

from .base import PEERS, Peer

__all__ = ["PEERS", "Peer"]
