"""What fusing depthwise layers with the 1x1 layers behind them could save at most.

    .venv/bin/python benchmarks/depthwise_fusion.py [--network mobilenetv1]

A fused pair would compute a few rows of the depthwise layer, then those of its follower from them, so that the values
in between never leave the nearest caches. Here both layers are run on a strip of so few rows, over and over, where that
is so without being fused; the values before and behind them are near too, which a fused pair's would not be. What a row
takes there, and in the whole map, in turn, is therefore a bound of the gain.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import nn

from prunemap.envs import build_network
from prunemap.kernels import CompiledNetwork, compile_network
from prunemap.pruning import LayerSpec, capture

ROWS = 8  # of the depthwise layer's results, in a strip
ROUNDS = 40


def pairs(network: str) -> Iterator[tuple[LayerSpec, LayerSpec]]:
    """Depthwise layers on maps higher than two strips, and their followers."""
    layers = capture(build_network(network).eval(), torch.zeros(1, 3, 224, 224)).layers
    for layer, follower in pairwise(layers):
        if layer.follows and follower.kernel == (1, 1) and layer.out_shape[1] >= 2 * ROWS:
            yield layer, follower


def compiled(layer: LayerSpec, follower: LayerSpec, rows: int) -> CompiledNetwork:
    """Both layers alone, for so many rows of the input."""
    pair = nn.Sequential(
        nn.Conv2d(layer.in_channels, layer.out_channels, 3, layer.stride, 1, groups=layer.groups),
        nn.ReLU6(),
        nn.Conv2d(follower.in_channels, follower.out_channels, 1),
    )
    return compile_network(pair.eval(), torch.zeros(1, layer.in_channels, rows, layer.in_shape[2]))


def seconds(network: CompiledNetwork) -> float:
    """Of the convolutions, the fastest of some runs."""
    own = [index for index, step in enumerate(network.steps) if step.op == "convolution"]
    return float(network.time_steps(4)[1:, own].sum(axis=1).min())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--network", nargs="*", default=["mobilenetv1", "mobilenetv2"])
    for name in parser.parse_args().network:
        whole = compile_network(build_network(name).eval(), torch.zeros(1, 3, 224, 224))
        total, saved = min(float(whole.time(4).min()) for _ in range(ROUNDS)), 0.0
        print(f"| {name} | map | in between, KiB | us per row | in strips |\n|---|---|---|---|---|")
        for layer, follower in pairs(name):
            full, strip = (
                compiled(layer, follower, layer.in_shape[1]),
                compiled(layer, follower, ROWS * layer.stride[0]),
            )
            turns = [(seconds(full), seconds(strip)) for _ in range(ROUNDS)]
            row, near = min(each for each, _ in turns) / layer.out_shape[1], min(each for _, each in turns) / ROWS
            saved += max(0.0, row - near) * layer.out_shape[1]
            channels, height, width = layer.out_shape
            told = f"{channels} to {follower.out_channels}, stride {layer.stride[0]}"
            print(f"| {told} | {height} | {channels * height * width / 256:.0f} | {1e6 * row:.2f} | {1e6 * near:.2f} |")
        print(f"\n{name}: at most {1e3 * saved:.2f} of {1e3 * total:.2f} ms, {saved / total:.1%}\n")


if __name__ == "__main__":
    main()
