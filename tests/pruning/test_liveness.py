from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from prunemap.pruning import (
    SCHEMES,
    Choice,
    Liveness,
    Mapping,
    Network,
    PrunemapError,
    apply_mapping,
    apply_masks,
    capture,
    live_channels,
    live_counts,
    make_masks,
    misfit,
)
from prunemap.pruning.choices import lone_reader

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,
    "none": nn.Identity,
}


class Residual(nn.Module):
    def __init__(self, body: nn.Module, shortcut: nn.Module, after: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut, self.after = body, shortcut, after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.after(self.body(x) + self.shortcut(x))
        return out


@st.composite
def models(draw: st.DrawFn) -> nn.Module:
    """A small network of everything that matters to liveness, in random order, with random weights."""

    def conv(channels: int, filters: int, groups: int = 1) -> list[nn.Module]:
        side = draw(st.sampled_from([1, 3]))
        norm = draw(st.booleans())
        bias = draw(st.booleans())
        modules: list[nn.Module] = [nn.Conv2d(channels, filters, side, padding=side // 2, groups=groups, bias=bias)]
        if norm:
            modules.append(nn.BatchNorm2d(filters))
        return [*modules, ACTIVATIONS[draw(st.sampled_from(["relu", "silu", "relu", "none", "sigmoid"]))]()]

    torch.manual_seed(draw(st.integers(0, 2**31)))
    channels = 2
    stages: list[nn.Module] = []
    for kind in draw(
        st.lists(st.sampled_from(["conv", "residual", "projection", "depthwise", "grouped"]), min_size=1, max_size=5)
    ):
        filters = draw(st.sampled_from([4, 6, 8]))
        if kind == "conv":
            stages += conv(channels, filters)
        elif kind == "residual":
            body = nn.Sequential(*conv(channels, filters), *conv(filters, channels))
            stages.append(Residual(body, nn.Identity(), ACTIVATIONS[draw(st.sampled_from(["relu", "none"]))]()))
            filters = channels
        elif kind == "projection":
            body = nn.Sequential(*conv(channels, filters))
            stages.append(Residual(body, nn.Sequential(*conv(channels, filters)), nn.ReLU()))
        elif kind == "depthwise":
            stages += conv(channels, channels, channels)
            filters = channels
        else:
            stages += conv(channels, filters, 2)
        channels = filters
    side = draw(st.sampled_from([1, 2]))
    pool: nn.Module = nn.AdaptiveAvgPool2d(1) if side == 1 else nn.MaxPool2d(2)
    stages += [pool, nn.Flatten(), nn.Dropout(), nn.Linear(channels * side * side, 6), nn.ReLU(), nn.Linear(6, 3)]
    model = nn.Sequential(*stages)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if name.endswith(("bias", "running_mean")):
                tensor.normal_()
    return model.eval()


def captured(model: nn.Module) -> Network:
    return capture(model, torch.zeros(1, 2, 4, 4))


def fitting(network: Network, families: tuple[str, ...], rates: tuple[float, ...]) -> dict[str, list[Choice]]:
    choices = [Choice(SCHEMES[family].example, rate) for family in families for rate in rates]
    return {layer.name: [c for c in choices if misfit(layer, c) is None] for layer in network.layers}


@st.composite
def mappings(draw: st.DrawFn, network: Network) -> Mapping:
    """Any scheme anywhere."""
    options = fitting(network, SCHEMES.names(), (1.5, 2.25, 4.0))
    return Mapping({name: draw(st.sampled_from(choices)) for name, choices in options.items() if draw(st.booleans())})


@st.composite
def clean_mappings(draw: st.DrawFn, network: Network) -> Mapping:
    """Removal of filters and channels in which no two layers choose sets of one group by themselves."""
    rates = st.sampled_from([1.5, 2.0, 4.0])
    chosen: dict[str, Choice] = {}
    for group in network.groups:
        reader = lone_reader(network, group)
        kind = draw(st.sampled_from(["filter", "channel", "nothing"]))
        rate = draw(rates)
        if kind == "filter" and not group.fixed and not chosen.keys() & set(group.producers):
            chosen |= dict.fromkeys(group.producers, Choice("filter", rate))
        elif kind == "channel" and reader is not None and reader not in chosen:
            chosen[reader] = Choice("channel", rate)
    return Mapping({name: choice for name, choice in chosen.items() if misfit(network.layer(name), choice) is None})


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_counts_are_exact_without_coincidences(data: st.DataObject) -> None:
    model = data.draw(models())
    network = captured(model)
    mapping = data.draw(clean_mappings(network))
    pruned = apply_mapping(model, mapping, network)
    live, counts = live_channels(network, pruned.state_dict()), live_counts(network, mapping)
    for layer in network.layers:
        count, exact = counts[layer.name], live[layer.name]
        kept = int(pruned.get_parameter(f"{layer.name}.weight").count_nonzero())
        assert (count.live_in, count.live_out) == (exact.inputs.sum(), exact.outputs.sum()), layer.name
        assert count.kept_weights == kept, layer.name
        assert count.macs == kept * layer.out_shape[1] * layer.out_shape[2]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_counts_are_never_less_than_what_is_alive(data: st.DataObject) -> None:
    model = data.draw(models())
    network = captured(model)
    mapping = data.draw(mappings(network))
    pruned = apply_mapping(model, mapping, network)
    live, counts = live_channels(network, pruned.state_dict()), live_counts(network, mapping)
    for layer in network.layers:
        count, exact = counts[layer.name], live[layer.name]
        kept = int(pruned.get_parameter(f"{layer.name}.weight").count_nonzero())
        assert count.live_in >= exact.inputs.sum(), layer.name
        assert count.live_out >= exact.outputs.sum(), layer.name
        assert count.kept_weights >= kept, layer.name


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_what_is_dead_does_not_matter(data: st.DataObject) -> None:
    """Zeroing dead filters and inputs, and values that need not be there, leaves the network's output as it is."""
    model = data.draw(models())
    network = captured(model)
    pruned = apply_mapping(model, data.draw(mappings(network)), network).double()
    images = torch.randn(2, 2, 4, 4, dtype=torch.float64)
    liveness = Liveness(network, pruned.state_dict())
    live, values = liveness.channels(), liveness.values()
    expected = pruned(images)

    silenced = copy.deepcopy(pruned)
    for layer in network.layers:
        outputs, inputs = (torch.from_numpy(flags) for flags in (live[layer.name].outputs, live[layer.name].inputs))
        module = silenced.get_submodule(layer.name)
        with torch.no_grad():
            weight = module.get_parameter("weight").view(layer.groups, -1, *layer.weight_shape[1:])
            weight *= inputs.view(layer.groups, 1, -1, 1, 1)
            weight *= outputs.view(layer.groups, -1, 1, 1, 1)
            for name in ("bias",) if layer.bias else ():
                module.get_parameter(name).mul_(outputs)
            for batchnorm in network.batchnorms[layer.name]:
                silenced.get_parameter(f"{batchnorm}.weight").mul_(outputs)
                silenced.get_parameter(f"{batchnorm}.bias").mul_(outputs)
    for node in network.nodes:
        if node.target is not None:
            there = torch.from_numpy(values[node.name]).view(-1, *[1] * (len(node.shape) - 1))
            silenced.get_submodule(node.target).register_forward_hook(lambda m, x, y, there=there: y * there)
    torch.testing.assert_close(silenced(images), expected, rtol=1e-12, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_masking_twice_is_masking_once(data: st.DataObject) -> None:
    model = data.draw(models())
    network = captured(model)
    masks = make_masks(model, data.draw(mappings(network)), network)
    apply_masks(model, masks)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    apply_masks(model, masks)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def chain(activation: nn.Module | None = None) -> tuple[nn.Module, Network]:
    model = nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), activation or nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3),
    )  # fmt: skip
    return model, captured(model)


def test_filter_and_channel_on_the_same_group() -> None:
    """Channels are counted among the filters that are left, so that rates multiply."""
    _, network = chain()
    counts = live_counts(network, Mapping({"0": Choice("filter", 2), "3": Choice("channel", 2)}))
    assert (counts["0"].live_out, counts["3"].live_in) == (2, 2)
    assert counts["0"].kept_weights == 2 * 2 * 9
    assert counts["3"].kept_weights == 4 * 2 * 9
    assert counts["3"].macs == 4 * 2 * 9 * 16


def test_other_schemes_count_among_the_live_units() -> None:
    _, network = chain()
    counts = live_counts(network, Mapping({"0": Choice("filter", 2), "3": Choice("unstructured", 4)}))
    assert counts["3"].kept_weights == 4 * 4 * 9 // 4
    counts = live_counts(network, Mapping({"0": Choice("unstructured", 4), "3": Choice("channel", 2)}))
    assert counts["0"].kept_weights == 4 * 2 * 9 // 4


def test_death_does_not_pass_through_a_sigmoid() -> None:
    model, network = chain(nn.Sigmoid())
    mapping = Mapping({"0": Choice("filter", 2)})
    counts = live_counts(network, mapping)
    live = live_channels(network, apply_mapping(model, mapping, network).state_dict())
    assert counts["0"].live_out == live["0"].outputs.sum() == 4
    assert counts["3"].live_in == live["3"].inputs.sum() == 8


def test_a_constant_channel_is_alive() -> None:
    """A filter of zeros whose batch norm shifts it is not dead, and neither is one with a bias."""
    model, network = chain()
    state = model.state_dict()
    state["0.weight"][0] = 0
    state["0.bias"][0] = 0
    state["1.bias"].zero_()
    state["1.bias"][0] = 1
    assert live_channels(network, state)["0"].outputs.all()
    state["1.bias"][0] = 0
    state["1.running_mean"][0] = 1
    assert live_channels(network, state)["0"].outputs.all()
    state["1.running_mean"][0] = 0
    live = live_channels(network, state)
    assert live["0"].outputs.tolist() == [False] + [True] * 7
    assert live["3"].inputs.tolist() == [False] + [True] * 7


def test_flattened_channels_die_together() -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    network = captured(model)
    mapping = Mapping({"0": Choice("filter", 2)})
    assert live_counts(network, mapping)["3"].live_in == 32
    pruned = apply_mapping(model, mapping, network)
    inputs = live_channels(network, pruned.state_dict())["3"].inputs.reshape(4, 16)
    assert (inputs.all(axis=1) == inputs.any(axis=1)).all()
    assert inputs.sum() == 32


@pytest.mark.parametrize("kind", ["torch", "numpy"])
def test_state_may_be_tensors_or_arrays(kind: str) -> None:
    model, network = chain()
    state = {k: v if kind == "torch" else v.numpy() for k, v in model.state_dict().items()}
    assert all(live.inputs.all() and live.outputs.all() for live in live_channels(network, state).values())
    assert all(isinstance(flags, np.ndarray) and flags.all() for flags in Liveness(network, state).values().values())


def test_state_that_does_not_fit() -> None:
    model, network = chain()
    state = model.state_dict()
    del state["1.weight"]
    with pytest.raises(PrunemapError, match=r"no '1\.weight'"):
        live_channels(network, state)
    with pytest.raises(PrunemapError, match=r"'1\.weight'.*shape \(3,\), not 8"):
        live_channels(network, {**state, "1.weight": torch.ones(3)})
