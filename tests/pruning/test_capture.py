from __future__ import annotations

import operator
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from prunemap.envs.networks import NETWORKS, build_network
from prunemap.pruning import Network, PrunemapError, capture, trace
from prunemap.pruning.operations import MODULES


class Fn(nn.Module):
    """A convolution and a function of its result."""

    def __init__(self, function: Any, *modules: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.extra = nn.ModuleList(modules)
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(self.conv(x), *self.extra)


def captured(model: nn.Module, size: int = 8) -> Network:
    return capture(model, torch.randn(2, 3, size, size))


def ops(network: Network) -> list[str]:
    return [node.op for node in network.nodes]


FUNCTIONS: list[tuple[Any, list[str]]] = [
    (lambda x: F.relu(x), ["activation"]),
    (lambda x: F.relu(x, inplace=True), ["activation"]),
    (lambda x: torch.relu(x), ["activation"]),
    (lambda x: x.relu(), ["activation"]),
    (lambda x: x.relu_(), ["activation"]),
    (lambda x: F.relu6(x), ["activation"]),
    (lambda x: F.hardtanh(x, 0.0, 6.0), ["activation"]),
    (lambda x: F.hardtanh(x, min_val=0, max_val=6), ["activation"]),
    (lambda x: torch.tanh(x), ["activation"]),
    (lambda x: x.sigmoid(), ["activation"]),
    (lambda x: F.hardswish(x), ["activation"]),
    (lambda x: F.silu(x), ["activation"]),
    (lambda x: F.max_pool2d(x, 2), ["maxpool"]),
    (lambda x: F.max_pool2d(x, kernel_size=3, stride=2, padding=1, ceil_mode=True), ["maxpool"]),
    (lambda x: F.avg_pool2d(x, 2), ["avgpool"]),
    (lambda x: F.avg_pool2d(x, x.size(3)), ["avgpool"]),
    (lambda x: F.avg_pool2d(x, x.size()[2:]), ["avgpool"]),
    (lambda x: F.adaptive_avg_pool2d(x, 1), ["globalavgpool"]),
    (lambda x: F.adaptive_avg_pool2d(x, (1, 1)), ["globalavgpool"]),
    (lambda x: x.mean([2, 3]), ["globalavgpool", "flatten"]),
    (lambda x: torch.mean(x, dim=(-1, -2)), ["globalavgpool", "flatten"]),
    (lambda x: x.mean((2, 3), keepdim=True), ["globalavgpool"]),
    (lambda x: torch.flatten(x, 1), ["flatten"]),
    (lambda x: torch.flatten(x, start_dim=1), ["flatten"]),
    (lambda x: x.flatten(1), ["flatten"]),
    (lambda x: x.view(x.size(0), -1), ["flatten"]),
    (lambda x: x.view(x.shape[0], -1), ["flatten"]),
    (lambda x: x.view(-1, 4 * 8 * 8), ["flatten"]),
    (lambda x: x.reshape((x.size(0), x.size(1) * x.size(2) * x.size(3))), ["flatten"]),
    (lambda x: F.dropout(x, 0.5, True), []),
    (lambda x: x + x, ["add"]),
    (lambda x: torch.add(x, x), ["add"]),
    (lambda x: operator.iadd(x, x), ["add"]),  # type: ignore[no-untyped-call]
]


@pytest.mark.parametrize(("function", "expected"), FUNCTIONS)
def test_functions(function: Any, expected: list[str]) -> None:
    model = Fn(function).eval()
    network = captured(model)
    assert ops(network) == ["input", "conv", *expected]
    with torch.no_grad():
        assert tuple(model(torch.randn(1, 3, 8, 8)).shape[1:]) == network.nodes[-1].shape
    assert ops(trace(model)) == ops(network)


@pytest.mark.parametrize(
    "module",
    [
        nn.BatchNorm2d(4), nn.ReLU(), nn.ReLU6(True), nn.Hardtanh(0, 6), nn.Tanh(), nn.Sigmoid(), nn.Hardswish(),
        nn.SiLU(), nn.MaxPool2d(2), nn.MaxPool2d((3, 2), 2, (1, 0)),
        nn.AvgPool2d(2, padding=1, count_include_pad=False), nn.AdaptiveAvgPool2d(1), nn.AdaptiveAvgPool2d((1, 1)),
        nn.Flatten(), nn.Dropout(), nn.Dropout2d(), nn.Identity(),
        nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(0, 1), dilation=(1, 3), groups=2), nn.Conv2d(4, 8, 6),
        nn.Conv2d(4, 8, 3, padding="same"), nn.Conv2d(4, 8, 3, padding="valid"), nn.Conv2d(4, 8, (1, 5)),
    ],
    ids=str,
)  # fmt: skip
def test_modules(module: nn.Module) -> None:
    assert type(module) in MODULES
    model = nn.Sequential(nn.Conv2d(3, 4, 3), module)
    network = captured(model)
    assert tuple(model.eval()(torch.randn(1, 3, 8, 8)).shape[1:]) == network.nodes[-1].shape
    assert len(network.nodes) == (2 if isinstance(module, nn.Dropout | nn.Dropout2d | nn.Identity) else 3)


class Block(nn.Module):
    """A residual block with in-place additions and activations, as networks are commonly written."""

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.shortcut = nn.Identity() if channels == filters else nn.Conv2d(channels, filters, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return self.relu(out)  # type: ignore[no-any-return]


def small_resnet() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), Block(8, 8), Block(8, 16),
        nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.BatchNorm2d(16), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(64, 5),
    )  # fmt: skip


def test_layers() -> None:
    network = captured(small_resnet())
    assert [layer.name for layer in network.layers] == [
        "0", "3.conv1", "3.conv2", "4.conv1", "4.conv2", "4.shortcut", "5", "9",
    ]  # fmt: skip
    first, depthwise, linear = network.layer("0"), network.layer("5"), network.layer("9")
    assert (first.kind, first.in_shape, first.out_shape, first.bias) == ("conv", (3, 8, 8), (8, 8, 8), True)
    assert first.macs == 8 * 3 * 9 * 64
    assert (depthwise.kind, depthwise.weight_shape, depthwise.follows) == ("depthwise", (16, 1, 3, 3), True)
    assert (linear.kind, linear.weight_shape, linear.macs) == ("linear", (5, 64, 1, 1), 320)
    assert network.macs == sum(layer.macs for layer in network.layers)
    with pytest.raises(PrunemapError, match=r"did you mean .*3\.conv1"):
        network.layer("3.conv")


def test_groups() -> None:
    image, stem, inner, wide, last, output = captured(small_resnet()).groups
    assert (image.producers, image.consumers, image.channels, image.fixed) == ((), ("0",), 3, True)
    assert stem.producers == ("0", "3.conv2")
    assert stem.consumers == ("3.conv1", "4.conv1", "4.shortcut")
    assert stem.batchnorms == ("1", "3.bn2")
    assert (inner.producers, inner.consumers, inner.fixed) == (("3.conv1",), ("3.conv2",), False)
    assert wide.producers == ("4.conv1",)
    assert (last.producers, last.consumers, last.followers) == (("4.conv2", "4.shortcut"), ("9",), ("5",))
    assert last.batchnorms == ("4.bn2", "6")
    assert (output.producers, output.fixed) == (("9",), True)


def test_each_layer_knows_its_groups_and_batchnorms() -> None:
    network = captured(small_resnet())
    for index, group in enumerate(network.groups):
        assert all(network.writes[name] == index for name in (*group.producers, *group.followers))
        assert all(network.reads[name] == index for name in (*group.consumers, *group.followers))
    assert network.batchnorms["3.conv2"] == ("3.bn2",)
    assert network.batchnorms["4.shortcut"] == ()
    assert network.batchnorms["5"] == ("6",)


def test_grouped_convolutions_and_sigmoids_fix_their_channels() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 3, groups=2), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.Sigmoid(),
        nn.Conv2d(4, 6, 1), nn.ReLU(), nn.Conv2d(6, 12, 1, groups=6), nn.Conv2d(12, 2, 1), nn.ReLU(),
        nn.Conv2d(2, 2, 1),
    )  # fmt: skip
    network = captured(model)
    assert [group.fixed for group in network.groups] == [True, True, True, True, True, True, False, True]
    assert not network.layer("8").follows  # Two filters per channel: its channels are its own.


def test_in_place_operations_change_what_later_readers_see() -> None:
    class Net(nn.Module):
        def __init__(self, inplace: bool) -> None:
            super().__init__()
            self.conv, self.relu = nn.Conv2d(3, 4, 1), nn.ReLU(inplace)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.conv(x)
            return torch.add(self.relu(x), x)

    assert captured(Net(inplace=False)).nodes[-1].inputs == ("relu", "conv")
    assert captured(Net(inplace=True)).nodes[-1].inputs == ("relu", "relu")


def test_what_the_output_does_not_need_is_left_out() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.main, self.unused = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.unused(x)
            out: torch.Tensor = self.main(x)
            return out

    network = captured(Net())
    assert [layer.name for layer in network.layers] == ["main"]
    assert ops(network) == ["input", "conv"]


def test_the_model_is_left_as_it_is() -> None:
    model = small_resnet()
    model[3].eval()
    flags = {name: module.training for name, module in model.named_modules()}
    state = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    capture(model, torch.ones(4, 3, 8, 8))
    assert flags == {name: module.training for name, module in model.named_modules()}
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_networks_are_values() -> None:
    network = captured(small_resnet())
    assert network == captured(small_resnet())
    assert hash(network) == hash(captured(small_resnet()))
    assert network != captured(small_resnet(), 9)
    assert pickle.loads(pickle.dumps(network)) == network


def test_trace_knows_all_but_sizes() -> None:
    network, traced = captured(small_resnet()), trace(small_resnet())
    assert traced.groups == network.groups
    assert [layer.weight_shape for layer in traced.layers] == [layer.weight_shape for layer in network.layers]
    assert traced.macs == 64 * 5


UNSUPPORTED: list[tuple[nn.Module, str]] = [
    (nn.Sequential(nn.Conv2d(3, 4, 1), nn.GELU()), r"module '1' \(GELU\): not supported; supported are .*Conv2d"),
    (nn.Sequential(nn.Sequential(nn.ConvTranspose2d(3, 4, 1))), r"module '0\.0' \(ConvTranspose2d\)"),
    (nn.Sequential(Fn(torch.exp)), r"'exp' in '0' \(Fn\): not supported"),
    (Fn(lambda x: x.cumsum(1)), r"'cumsum' in Fn: not supported"),
    (Fn(lambda x: x * 2), r"'mul' in Fn: not supported"),
    (Fn(lambda x: x + 1), "sum of two tensors"),
    (Fn(lambda x: torch.add(x, x, alpha=2)), "sum of two tensors"),
    (Fn(lambda x: x + x.mean((2, 3), keepdim=True)), "terms of different shapes"),
    (Fn(lambda x: x.mean()), "over height and width"),
    (Fn(lambda x: x.view(1, 2, 2, -1)), "only x.view"),
    (Fn(lambda x: x.view(-1, 8)), "flattening all but the batch"),
    (Fn(lambda x: x.flatten()), "start_dim=1"),
    (Fn(lambda x: F.adaptive_avg_pool2d(x, 2)), "only output size 1"),
    (Fn(lambda x: F.max_pool2d(x, 2, dilation=2)), "only plain max pooling"),
    (Fn(lambda x: {"logits": x}), "one output"),
    (Fn(lambda x: (x, x)), "one output"),
    (Fn(lambda x: x if x.sum() > 0 else -x), "cannot trace Fn"),
    (Fn(lambda x, conv: conv(conv(x)), nn.Conv2d(4, 4, 1)), r"'extra\.0' \(Conv2d\): its parameters are used twice"),
    (nn.Sequential(nn.Conv2d(3, 4, 1), nn.Linear(8, 2)), r"module '1' \(Linear\): its input has shape \(4, 8, 8\)"),
    (nn.Sequential(nn.Conv2d(3, 4, 1, padding_mode="reflect")), "padding_mode='reflect'; only zeros"),
    (nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, affine=False)), "affine=True"),
    (nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)), "track_running_stats=True"),
    (nn.Sequential(nn.Conv2d(3, 4, 1), nn.Hardtanh()), r"only Hardtanh\(0, 6\)"),
    (nn.Sequential(nn.Conv2d(3, 4, 1), nn.AvgPool2d(2, ceil_mode=True)), "only plain average pooling"),
    (nn.Sequential(nn.ReLU()), "no convolution or linear layer"),
    (nn.Sequential(nn.Conv2d(5, 4, 1)), r"running Sequential on an input of shape \(1, 3, 8, 8\)"),
    (nn.Sequential(nn.Conv2d(3, 4, 9)), "running Sequential .*: .*greater than actual input size"),
    (nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(5)), "running Sequential .*: running_mean should contain 4"),
    (nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Conv2d(4, 4, 1)), "running Sequential .*: Expected .* 4D"),
    (nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(8, 2)), "running Sequential .*: mat1 and mat2"),
    (nn.Sequential(nn.Conv2d(3, 4, 1).double()), "running Sequential .*: Input type"),
]


@pytest.mark.parametrize(("model", "message"), UNSUPPORTED, ids=[message for _, message in UNSUPPORTED])
def test_what_is_not_supported_is_named(model: nn.Module, message: str) -> None:
    with pytest.raises(PrunemapError, match=message) as error:
        captured(model)
    assert "\n" not in str(error.value)


def test_what_a_module_is_made_to_do_besides_is_not_left_out() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3))
    model[0].register_forward_hook(lambda module, arguments, result: result[..., ::2])
    assert captured(model).nodes[-1].shape == (4, 6, 2)


def test_uneven_padding_is_refused() -> None:
    with pytest.raises(PrunemapError, match="pads the two sides differently"):
        trace(nn.Sequential(nn.Conv2d(3, 4, 2, padding="same")))


def test_two_inputs() -> None:
    class Net(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x + y

    with pytest.raises(PrunemapError, match="input"):
        captured(Net())


def test_shared_weights() -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
    model[1].weight = model[0].weight
    with pytest.raises(PrunemapError, match=r"'1'.*used twice.*'0'"):
        captured(model)


def test_example_input_must_be_images() -> None:
    with pytest.raises(PrunemapError, match="expected"):
        capture(small_resnet(), torch.randn(3, 8, 8))


def test_sums_of_flattened_and_other_features_are_refused() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.linear, self.head = nn.Conv2d(3, 4, 1), nn.Linear(3 * 64, 4 * 64), nn.Linear(4 * 64, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.head(self.conv(x).flatten(1) + self.linear(x.flatten(1)))
            return out

    with pytest.raises(PrunemapError, match="flatten after the sum"):
        captured(Net())


SIZES = [(name, False) for name in NETWORKS] + [(name, True) for name in NETWORKS if NETWORKS[name].small_shape]


@pytest.mark.parametrize(("name", "small"), SIZES)
def test_listed_networks(name: str, small: bool) -> None:
    entry = NETWORKS[name]
    shape = entry.small_shape if small else entry.input_shape
    assert shape is not None
    model = build_network(name, **({"small": True} if small else {})).eval()
    network = capture(model, torch.zeros(1, *shape))
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(network.layers) == len(convolutions)
    assert network.weights == sum(module.weight.numel() for module in convolutions)
    assert network.input_shape == shape
    assert all(layer.name in network.reads and layer.name in network.writes for layer in network.layers)
