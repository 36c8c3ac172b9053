from __future__ import annotations

import pytest
import torch
from torch import nn

from prunemap.pruning import (
    SCHEMES,
    Choice,
    Mapping,
    PrunemapError,
    Pruner,
    apply_mapping,
    apply_masks,
    capture,
    make_masks,
    mask_from_units,
    misfit,
    parse_scheme,
    select_units,
    unit_norms,
)


class Residual(nn.Module):
    """stem -> block -> block, the two sums in one channel group of three producers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.a, self.bna = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.b, self.bnb = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn(self.stem(x)))
        x = torch.relu(x + self.bna(self.a(x)))
        x = torch.relu(x + self.bnb(self.b(x)))
        out: torch.Tensor = self.head(x.mean((2, 3)))
        return out


def chain(*, flatten: bool = False) -> nn.Sequential:
    tail = [nn.Flatten(), nn.Linear(4 * 16, 3)] if flatten else [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)]
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.ReLU6(),
        nn.Conv2d(8, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), *tail,
    )  # fmt: skip


def perturb(model: nn.Module) -> None:
    """Give batch norms and biases values that a forgotten mask would show."""
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.is_floating_point() and tensor.dim() == 1:
                tensor.uniform_(0.5, 1.5) if "var" in name else tensor.normal_()


def filters(mask: torch.Tensor) -> list[bool]:
    kept: list[bool] = mask.flatten(1).any(dim=1).tolist()
    return kept


def test_a_removed_filter_gives_exactly_zero_in_training_and_evaluation() -> None:
    model = chain()
    perturb(model)
    masks = make_masks(model, Mapping({"0": Choice("filter", 2)}))
    apply_masks(model, masks)
    dead = ~masks["0.bias"]
    assert int(dead.sum()) == 4
    for training in (True, False):
        model.train(training)
        for depth in (3, 6):  # After the batch norm, and after its depthwise follower's.
            values = nn.Sequential(*list(model)[:depth])(torch.randn(4, 3, 4, 4))
            assert values[:, dead].count_nonzero() == 0
            assert values[:, ~dead].abs().sum() > 0


def test_filter_masks_reach_all_that_dies() -> None:
    masks = make_masks(chain(), Mapping({"0": Choice("filter", 2)}))
    kept = masks["0.bias"]
    assert set(masks) == {
        "0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "3.bias", "4.weight", "4.bias", "6.weight",
    }  # fmt: skip
    for name in ("1.weight", "1.bias", "3.bias", "4.weight", "4.bias"):
        assert torch.equal(masks[name], kept)
    assert filters(masks["0.weight"]) == filters(masks["3.weight"]) == kept.tolist()
    assert torch.equal(masks["6.weight"], kept.view(1, 8, 1, 1).expand(4, 8, 1, 1))


def test_filters_of_largest_norm_stay() -> None:
    model = chain()
    norms = model.get_parameter("0.weight").flatten(1).norm(dim=1)
    masks = make_masks(model, Mapping({"0": Choice("filter", 4)}))
    assert set(norms.topk(2).indices.tolist()) == set(masks["0.bias"].nonzero().flatten().tolist())


def test_dropped_channels_take_their_filters_along() -> None:
    masks = make_masks(chain(), Mapping({"6": Choice("channel", 2)}))
    kept = masks["0.bias"]
    assert int(kept.sum()) == 4
    assert torch.equal(masks["6.weight"], kept.view(1, 8, 1, 1).expand(4, 8, 1, 1))
    assert torch.equal(masks["3.bias"], kept)
    assert torch.equal(masks["4.weight"], kept)


def test_channels_are_chosen_among_live_ones() -> None:
    masks = make_masks(chain(), Mapping({"0": Choice("filter", 2), "6": Choice("channel", 2)}))
    alone = make_masks(chain(), Mapping({"0": Choice("filter", 2)}))
    assert int(alone["0.bias"].sum()) == 4
    assert int(masks["0.bias"].sum()) == 2
    assert int(masks["6.weight"].sum()) == 8


def test_other_schemes_see_the_smaller_layer() -> None:
    model = chain()
    masks = make_masks(model, Mapping({"0": Choice("filter", 2), "6": Choice("block-punched:2x2", 2)}))
    kept = masks["0.bias"]
    scheme = parse_scheme("block-punched:2x2")
    small = model.get_parameter("6.weight")[:, kept]
    units = select_units(unit_norms(small, scheme), scheme, 2)
    assert torch.equal(masks["6.weight"][:, kept], mask_from_units(units, scheme, tuple(small.shape)))
    assert not masks["6.weight"][:, ~kept].any()


def test_flattened_channels_go_together() -> None:
    masks = make_masks(chain(flatten=True), Mapping({"6": Choice("filter", 2)}))
    inputs = masks["10.weight"][0].reshape(4, 16)
    assert torch.equal(inputs, masks["6.bias"][:, None].expand(4, 16))


def test_a_residual_group_that_agrees_keeps_one_set() -> None:
    model = Residual()
    perturb(model)
    masks = make_masks(model, Mapping({name: Choice("filter", 2) for name in ("stem", "a", "b")}))
    together = sum(model.get_parameter(f"{name}.weight").square().flatten(1).sum(1) for name in ("stem", "a", "b"))
    assert isinstance(together, torch.Tensor)
    kept = masks["stem.bias"]
    assert set(together.topk(4).indices.tolist()) == set(kept.nonzero().flatten().tolist())
    assert filters(masks["a.weight"]) == filters(masks["b.weight"]) == kept.tolist()
    assert torch.equal(masks["head.weight"], kept.expand(4, 8))
    assert torch.equal(masks["a.weight"][kept][:, ~kept], torch.zeros(4, 4, 3, 3, dtype=torch.bool))


@pytest.mark.parametrize(
    "mapping",
    [
        {"a": Choice("filter", 2)},
        {"stem": Choice("filter", 4), "a": Choice("filter", 2), "b": Choice("filter", 2)},
    ],
)
def test_a_residual_group_that_differs_saves_its_members_own_work(mapping: dict[str, Choice]) -> None:
    model = Residual()
    perturb(model)
    masks = make_masks(model, Mapping(mapping))
    assert "head.weight" not in masks
    for name, choice in mapping.items():
        norms = model.get_parameter(f"{name}.weight").flatten(1).norm(dim=1)
        kept = torch.zeros(8, dtype=torch.bool)
        kept[norms.topk(round(8 / choice.rate)).indices] = True
        assert torch.equal(masks[f"{name}.weight"], kept.view(8, 1, 1, 1).expand_as(masks[f"{name}.weight"]))
        assert torch.equal(masks[f"{'bn' if name == 'stem' else 'bn' + name}.bias"], kept)


def test_pattern_library_is_the_networks() -> None:
    model = Residual()
    masks = make_masks(model, Mapping({"a": Choice("pattern:2", 4), "b": Choice("pattern:2", 4)}))
    shapes = {
        tuple(kernel.nonzero().flatten().tolist())
        for name in ("a", "b")
        for kernel in masks[f"{name}.weight"].reshape(-1, 9)
        if kernel.any()
    }
    assert len(shapes) == 2
    assert all(4 in shape and len(shape) == 4 for shape in shapes)


def test_equal_choices_give_equal_masks() -> None:
    model = chain()
    first = make_masks(model, Mapping({"6": Choice("simd:8", 2)}))
    second = make_masks(model, Mapping({"6": Choice("channel", 2)}))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_dense_masks_nothing() -> None:
    assert make_masks(chain(), Mapping()) == {}
    assert make_masks(chain(), Mapping({"0": Choice("filter", 1)})) == {}


def test_apply_mapping_copies() -> None:
    model = chain()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    network = capture(model, torch.zeros(1, 3, 4, 4))
    mapping = Mapping({"0": Choice("unstructured", 4), "6": Choice("filter", 2)})
    pruned, traced = apply_mapping(model, mapping, network), apply_mapping(model, mapping)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(a, b) for a, b in zip(pruned.parameters(), traced.parameters(), strict=True))
    assert int(pruned.get_parameter("0.weight").count_nonzero()) == 8 * 27 // 4
    assert pruned.training is model.training


@pytest.mark.parametrize("model", [Residual(), chain(), chain(flatten=True)], ids=["residual", "chain", "flattened"])
def test_a_pruner_remembers_nothing_of_the_mappings_before(model: nn.Module) -> None:
    perturb(model)
    network = capture(model, torch.zeros(1, 3, 4, 4))
    pruner = Pruner(network, model.state_dict())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for rate in (2.25, 4.0):
        for beside in ("dense", "filter", "channel"):
            for name in SCHEMES:
                chosen = {}
                for index, layer in enumerate(network.layers):
                    choice = Choice(SCHEMES[(name, beside)[index % 2]].example, rate)
                    if choice.scheme != "dense" and misfit(layer, choice) is None:
                        chosen[layer.name] = choice
                mapping = Mapping(chosen)
                masks, fresh = pruner.masks(mapping), make_masks(model, mapping, network)
                assert masks.keys() == fresh.keys()
                assert all(torch.equal(masks[name], fresh[name]) for name in masks)
                pruned, state = apply_mapping(model, mapping, network).state_dict(), pruner.state(mapping)
                assert list(state) == list(pruned)
                assert all(torch.equal(state[name], pruned[name]) for name in state)
                assert all(
                    state[name].data_ptr() == model.state_dict()[name].data_ptr() for name in {*state} - {*masks}
                )
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_grouped_convolutions_can_be_pruned() -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 3, groups=2), nn.ReLU(), nn.Conv2d(8, 4, 1))
    for scheme, kept in (("filter", 4 * 18), ("channel", 2 * 4 * 9), ("simd:4", 36 * 2), ("unstructured", 72)):
        masks = make_masks(model, Mapping({"0": Choice(scheme, 2)}))
        assert int(masks["0.weight"].sum()) == kept
        assert "2.weight" not in masks


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"convv": Choice("simd:8", 4)}, "unknown layer 'convv'"),
        ({"stemm": Choice("simd:8", 4)}, "did you mean stem"),
        ({"head": Choice("block-punched:8x4", 4)}, "layer 'head'.*block-punched:8x4 does not fit.*block-row"),
        ({"a": Choice("pattern:4", 2)}, r"layer 'a'.*smallest rate is 2\.25"),
    ],
)
def test_mappings_that_do_not_fit_the_network(mapping: dict[str, Choice], message: str) -> None:
    with pytest.raises(PrunemapError, match=message):
        make_masks(Residual(), Mapping(mapping))


def test_weights_that_are_not_finite_are_named() -> None:
    model = Residual()
    with torch.no_grad():
        model.a.weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(PrunemapError, match=r"layer 'a'.*not finite"):
        make_masks(model, Mapping({"a": Choice("simd:8", 4)}))


def test_masks_of_another_model_are_refused() -> None:
    with pytest.raises(PrunemapError, match="no such parameter"):
        apply_masks(Residual(), {"nothing": torch.ones(3, dtype=torch.bool)})
    with pytest.raises(PrunemapError, match="shape"):
        apply_masks(Residual(), {"head.bias": torch.ones(3, dtype=torch.bool)})
