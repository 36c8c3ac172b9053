"""The contribution model: what each removed filter saves in the whole network (SP-LAMP, equations 6 and 7).

Equation 7 takes whole networks with j and j - 1 filters of one layer left, everything that this narrows included: the
layers that read the channel, the followers, and, in a residual group, all that write it. So a contribution knows skip
connections and where the layer stands. The paper runs each of these networks or asks nn-Meter; here the table model
prices them from what was measured in place. Equation 6 then adds contributions up, as if layers did not influence one
another: a knapsack needs that.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...pruning import parse_scheme
from ...pruning.errors import PrunemapError
from ...pruning.mapping import Choice, Mapping
from ...pruning.network import Network
from ..probes import Probe
from ..rows import Row, Survey
from .base import MODELS, Prediction, Weigh
from .table import TableModel

Floats = NDArray[np.float64]


@MODELS.register("contribution")
class ContributionModel:
    """Prices removed filters one by one, and mappings of ``filter`` choices by their sum.

    The band is the table model's, widened by how far the sum lies from the table model's own answer: filters of
    neighbouring layers save less together than one by one.
    """

    def __init__(self, network: Network, survey: Survey, weigh: Weigh | None = None) -> None:
        self._network = network
        self._table = TableModel(network, survey, weigh)
        self._dense_ms = self._table.predict(Mapping()).ms
        self._known: dict[int, Floats] = {}

    @classmethod
    def probes(cls, network: Network, choices: Sequence[Choice], seed: int) -> list[Probe]:
        """Those of the table model."""
        return TableModel.probes(network, choices, seed)

    @classmethod
    def refine(cls, network: Network, choices: Sequence[Choice], rows: Sequence[Row]) -> list[Probe]:
        """As the table model."""
        return TableModel.refine(network, choices, rows)

    def contributions(self, layer: str) -> Floats:
        """c_j of equation 7 for every filter of the channel group that ``layer`` writes, in ms: shape (channels,).

        Entry j - 1 is what the network takes longer with j channels of the group than with j - 1; the first is taken
        together with nothing, so that entry 0 is 0: one channel always stays. Entries may be negative where kernels
        like a width better than the next smaller one; their sum up to p is ``T(p)`` of equation 6.

        Raises:
            PrunemapError: For an unknown layer, or one whose filters cannot be removed.
        """
        self._network.layer(layer)
        index = self._network.writes[layer]
        group = self._network.groups[index]
        if group.fixed or not group.producers:
            raise PrunemapError(
                f"layer {layer!r}: its filters cannot be removed: they are the network's input or output"
            )
        if index not in self._known:
            totals = [
                self._with_channels(group.producers, group.channels, left) for left in range(1, group.channels + 1)
            ]
            self._known[index] = np.diff(np.array(totals), prepend=totals[0])
        return self._known[index]

    def predict(self, mapping: Mapping) -> Prediction:
        """The dense network less the contributions of all filters that ``mapping`` removes (equations 5 and 6).

        Raises:
            PrunemapError: For a layer that the network has not, or a choice other than ``filter``.
        """
        saved = 0.0
        for index, group in enumerate(self._network.groups):
            chosen = {mapping[name] for name in group.producers if name in mapping}
            for choice in chosen:
                if parse_scheme(choice.scheme).removes != "filters":
                    raise PrunemapError(f"the model contribution prices removed filters only, not {choice}")
            if not group.fixed and len({mapping[name] for name in group.producers}) == 1 and chosen:
                kept = max(1, int(group.channels / chosen.pop().rate + 0.5))
                saved += float(self.contributions(self._network.groups[index].producers[0])[kept:].sum())
        table = self._table.predict(mapping)
        ms = max(self._dense_ms - saved, 0.0)
        off = abs(ms - table.ms)
        return Prediction(ms, max(0.0, ms - (table.ms - table.low) - off), ms + (table.high - table.ms) + off)

    def layers_ms(self, mapping: Mapping) -> tuple[float, ...]:
        """Milliseconds of every layer, from the table model."""
        return self._table.layers_ms(mapping)

    def layer_ms(self, layer: str, choice: Choice) -> float:
        """Milliseconds of one layer under one choice while all other layers are dense, from the table model."""
        return self._table.layer_ms(layer, choice)

    def _with_channels(self, producers: Sequence[str], channels: int, left: int) -> float:
        """Phi of equation 7: the whole network with ``left`` channels of a group."""
        choice = Choice("filter", channels / left)
        return self._table.predict(Mapping(dict.fromkeys(producers, choice))).ms
