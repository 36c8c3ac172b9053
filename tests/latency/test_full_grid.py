"""The coarse grid of the channels model against every width, on an engine whose times are known."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from prunemap.latency import Profile
from prunemap.latency.full_grid import GridError, Width, check_grid, full_grid
from prunemap.pruning import Network, PrunemapError, capture, live_counts

pytestmark = pytest.mark.usefixtures("quiet_engine")


class Loop(nn.Module):
    """A layer that reads and writes one group of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head(x + self.conv(x))


@pytest.fixture(scope="module")
def profile(network: Network, quiet_engine: None) -> Profile:
    return Profile.build(network, ["filter"], [2.0], model="channels")


def test_every_width_is_there_once_dense_last(network: Network) -> None:
    mappings = full_grid(network, "conv1")
    counts = [live_counts(network, mapping)["conv1"] for mapping in mappings]
    assert [(c.live_in, c.live_out) for c in counts] == [(i, o) for i in range(1, 17) for o in range(1, 33)]
    assert not len(mappings[-1])


def test_only_the_widths_that_can_change_are_gone_through(network: Network) -> None:
    assert len(full_grid(network, "stem")) == 16  # it reads the input
    assert len(full_grid(network, "head")) == 16  # it writes the output


def test_layers_inside_one_group_have_no_grid() -> None:
    loop = capture(Loop(), torch.zeros(1, 3, 8, 8))
    with pytest.raises(PrunemapError, match="removed together"):
        full_grid(loop, "conv")


def test_a_rule_that_is_bilinear_is_interpolated_without_error(profile: Profile) -> None:
    widths = check_grid(profile, "down")
    found = GridError.of("down", widths)
    assert (widths[-1].live_in, widths[-1].live_out) == (16, 16)
    assert found.widths == len(widths) == 16 * 16
    assert found.largest < 1e-3


def test_errors_are_seen() -> None:
    """Half of the time missed at the small width, all right at full width."""
    found = GridError.of("a", [Width(1, 1, 0.5, 1.0), Width(2, 2, 4.0, 4.0)])
    assert (found.mean, found.of_dense, found.largest) == (0.25, 0.0625, 0.5)


def test_another_models_profile_is_refused(network: Network) -> None:
    with pytest.raises(PrunemapError, match="holds no grid"):
        check_grid(Profile.build(network, ["filter"], [2.0]), "conv1")
