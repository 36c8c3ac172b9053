"""Modules made from structure alone."""

from __future__ import annotations

import pytest
import torch

from prunemap.envs import NETWORKS, build_network
from prunemap.envs.networks import default_input_shape
from prunemap.latency import synthesise
from prunemap.pruning import Network, capture


@pytest.mark.parametrize("name", NETWORKS.names())
def test_every_network_comes_back(name: str) -> None:
    model = build_network(name).eval()
    example = torch.randn(1, *default_input_shape(name), generator=torch.Generator().manual_seed(0))
    network = capture(model, example)
    made = synthesise(network)
    assert capture(made, example).layers == network.layers
    assert capture(made, example).groups == network.groups
    made.load_state_dict(model.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(made(example), model(example))


def test_weights_are_decided_by_the_seed_alone(network: Network) -> None:
    before = torch.get_rng_state()
    first, again, other = synthesise(network, 1), synthesise(network, 1), synthesise(network, 2)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.state_dict()["conv1.weight"], again.state_dict()["conv1.weight"])
    assert not torch.equal(first.state_dict()["conv1.weight"], other.state_dict()["conv1.weight"])


def test_outputs_are_finite_in_deep_networks() -> None:
    network = capture(build_network("resnet56").eval(), torch.zeros(1, 3, 32, 32))
    with torch.no_grad():
        assert synthesise(network)(torch.ones(1, 3, 32, 32)).isfinite().all()
