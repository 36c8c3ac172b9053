"""What is left of known weights, against what compiling makes of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from prunemap.envs import build_network
from prunemap.kernels import compile_state
from prunemap.latency import synthesise
from prunemap.latency.weighing import Weighing
from prunemap.pruning import Choice, Mapping, Network, Pruner, capture, live_channels, misfit
from prunemap.pruning.schemes import SCHEMES

INPUTS = {"resnet8": (3, 8, 8), "mobilenetv2": (3, 96, 96)}  # maps on which every tap reads a pixel


def random_mapping(network: Network, rng: np.random.Generator) -> Mapping:
    schemes = [SCHEMES[family].example for family in sorted(SCHEMES)]
    chosen = {}
    for layer in network.layers:
        fitting = [c for s in schemes if misfit(layer, c := Choice(s, float(rng.uniform(1, 16)))) is None]
        chosen[layer.name] = fitting[rng.integers(len(fitting))]
    return Mapping(chosen)


@pytest.mark.parametrize("name", INPUTS)
def test_what_is_left_is_what_is_compiled(name: str) -> None:
    network = capture(build_network(name, seed=0).eval(), torch.zeros(1, *INPUTS[name]))
    state, rng = synthesise(network, 0).state_dict(), np.random.default_rng(0)
    weigh, places = Weighing(network, state), set[float]()
    for _ in range(5):
        mapping = random_mapping(network, rng)
        compiled = compile_state(network, Pruner(network, state).state(mapping), tune=False)
        live = live_channels(network, Pruner(network, state).state(mapping))
        steps = {step.layer: step for step in compiled.steps if step.op == "convolution"}
        for layer, left in zip(network.layers, weigh(mapping), strict=True):
            step = steps[layer.name]
            assert left.stored == step.shape[0] / layer.out_channels
            assert left.kept == pytest.approx(step.kept_weights / layer.weights)
            own = live[layer.name]
            assert left.alive == own.outputs.any()
            assert left.inputs == (1.0 if layer.groups > 1 else own.given.mean())
            assert own.inputs.mean() <= left.planes <= 1.0
            places.add(left.planes)
    assert len(places) > 2
