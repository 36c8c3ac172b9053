"""The sequence-to-sequence policy of Gong et al., section 5.1: layers in, choices out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..pruning import Choice

Pick = Callable[[Tensor], Tensor]
"""Called at each layer with (K, choices) log-probabilities; returns the (K,) choices taken."""


@dataclass(frozen=True)
class Decisions:
    """K mappings as the policy decided them.

    Attributes:
        log_prob: (K,) log pi(M | I; theta): the sum of the log-probabilities of a mapping's choices.
        entropy: (K,) sum of the entropies of the distributions that they were taken from, in nats.
    """

    log_prob: Tensor
    entropy: Tensor


class SequencePolicy(nn.Module):
    """pi(M | I; theta): an encoder over the layers' information I, a decoder with one step per layer.

    The decoder's LSTM starts from the encoder's last state and sees, at each layer, the encoder's output there and the
    choice before. The paper's action is a pair (regularity, block size), to which the rate comes: a choice's logit is
    the sum of its scheme's and its rate's, so that what is learnt of one scheme holds at every rate, and the other way
    round. Two things are ours. All decoder logits start at zero, so that nothing is preferred at first. And a choice
    gains ``repeat`` for each part it shares with the choice before: the first mappings are then coherent, and differ
    much more in reward than independent draws do. ``repeat`` is learnt like everything else.
    """

    def __init__(self, catalogue: Sequence[Choice], inputs: int, hidden: int, repeat: float) -> None:
        """Make the policy.

        Args:
            catalogue: The choices.
            inputs: Numbers that describe a layer.
            hidden: Size of the LSTMs' states.
            repeat: Initial bonus, in logits, of a scheme or rate that repeats.
        """
        super().__init__()
        self.register_buffer("parts", _parts(catalogue), persistent=False)
        self.parts: Tensor
        size = self.parts.shape[1]
        self.encoder = nn.LSTM(inputs, hidden, batch_first=True)
        self.decoder = nn.LSTMCell(2 * hidden, hidden)
        self.embedding = nn.Linear(size, hidden)
        self.head = nn.Linear(hidden, size)
        self.repeat = nn.Parameter(torch.full((size,), repeat))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, layers: Tensor, legal: Tensor, count: int, pick: Pick) -> Decisions:
        """Decide ``count`` mappings, layer by layer.

        Args:
            layers: (layers, inputs), the information I.
            legal: (layers, choices) bool; others have probability 0.
            count: K.
            pick: Takes the choices.
        """
        outputs, (state, cell) = self.encoder(layers[None])
        state, cell = state[0].expand(count, -1), cell[0].expand(count, -1)
        before = self.parts.new_zeros(count, self.parts.shape[1])
        log_prob, entropy = torch.zeros(count), torch.zeros(count)
        for layer, output in enumerate(outputs[0]):
            step = torch.cat([output.expand(count, -1), self.embedding(before)], dim=1)
            state, cell = self.decoder(step, (state, cell))
            logits = (self.head(state) + self.repeat * before) @ self.parts.T
            log_probs = logits.masked_fill(~legal[layer], -math.inf).log_softmax(dim=1)
            taken = pick(log_probs)
            log_prob = log_prob + log_probs.gather(1, taken[:, None])[:, 0]
            entropy = entropy - (log_probs.exp() * log_probs.masked_fill(~legal[layer], 0.0)).sum(dim=1)
            before = self.parts[taken]
        return Decisions(log_prob, entropy)


def _parts(catalogue: Sequence[Choice]) -> Tensor:
    """(choices, schemes + rates): which scheme and which rate a choice consists of, as ones."""
    schemes = sorted({choice.scheme for choice in catalogue})
    rates = sorted({choice.rate for choice in catalogue})
    parts = torch.zeros(len(catalogue), len(schemes) + len(rates))
    for row, choice in zip(parts, catalogue, strict=True):
        row[schemes.index(choice.scheme)] = 1.0
        row[len(schemes) + rates.index(choice.rate)] = 1.0
    return parts
