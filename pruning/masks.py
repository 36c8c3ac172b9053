"""Masks: which parameters stay, chosen by magnitude from a model's own weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping as AbstractMapping

import torch
from torch import nn

from .capture import trace
from .choices import canonical_mapping, lone_reader, shared_filters
from .errors import PrunemapError
from .mapping import DENSE, Mapping
from .network import LayerSpec, Network
from .schemes import Scheme, mask_from_units, parse_scheme, select_units, unit_norms

Masks = dict[str, torch.Tensor]
"""Parameter name -> boolean tensor of its shape, True where it stays. Parameters not named are whole."""

SMALLEST_UNIT = 8
"""Weights per unit from which a ``Pruner`` remembers norms: they take at most a quarter of the weights' memory."""


def make_masks(model: nn.Module, mapping: Mapping, network: Network | None = None) -> Masks:
    """Choose what ``mapping`` keeps of ``model``, by L2 norm of the schemes' units (one-shot magnitude pruning).

    Filters and channels are chosen first: filters among all of a layer's, once for a group whose producers all choose
    ``filter`` at one rate, by their summed squared norms; then channels, among those that are left and by the norms of
    the filters that are left. The other schemes then see the layer of live filters and channels as if it were a
    smaller layer. A removed filter's bias and the scale and shift of its batch norms are masked with it, and so are
    all parameters that this makes dead.

    Args:
        model: Holds the weights; it is not changed.
        mapping: What to prune.
        network: The model's structure; traced when it is not given.

    Returns:
        Masks of the parameters that lose something.

    Raises:
        PrunemapError: For a layer that the network has not, a choice that does not fit its layer, or weights that are
            not finite.
    """
    return Pruner(network or trace(model), model.state_dict()).masks(mapping)


def apply_masks(model: nn.Module, masks: Masks) -> None:
    """Zero what ``masks`` remove, in place.

    Raises:
        PrunemapError: When a mask names no parameter of the model, or has another shape.
    """
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, mask in masks.items():
            if name not in parameters:
                raise PrunemapError(f"mask of {name!r}: {type(model).__name__} has no such parameter")
            if parameters[name].shape != mask.shape:
                shapes = f"{tuple(mask.shape)}, the parameter {tuple(parameters[name].shape)}"
                raise PrunemapError(f"mask of {name!r} has shape {shapes}")
            parameters[name].masked_fill_(~mask.to(parameters[name].device), 0.0)


def apply_mapping(model: nn.Module, mapping: Mapping, network: Network | None = None) -> nn.Module:
    """A pruned copy of ``model``: ``make_masks`` applied. Arguments and errors as there."""
    pruned = copy.deepcopy(model)
    apply_masks(pruned, make_masks(pruned, mapping, network))
    return pruned


class Pruner:
    """Prunes one dense network under one mapping after another; what the mapping does not decide is found once.

    Args:
        network: The structure.
        state: The dense parameters, as a state dict; they must not change while they are pruned.
    """

    def __init__(self, network: Network, state: AbstractMapping[str, torch.Tensor]) -> None:
        self._network = network
        self._state = state
        self._bound: dict[str, Scheme] = {}
        self._norms: dict[tuple[str, Scheme], torch.Tensor] = {}

    def masks(self, mapping: Mapping) -> Masks:
        """What ``mapping`` keeps; errors as ``make_masks``."""
        picker = _Picker(self, canonical_mapping(self._network, mapping), self._network)
        picker.pick_filters()
        picker.pick_channels()
        return picker.masks()

    def state(self, mapping: Mapping) -> dict[str, torch.Tensor]:
        """The pruned state dict. What loses nothing is shared with the dense one; errors as ``make_masks``.

        Weights have to be finite. Zeros may be negative: multiplying is many times faster than filling.
        """
        state = dict(self._state)
        for name, mask in self.masks(mapping).items():
            state[name] = state[name].detach() * mask.to(state[name].device)
        return state

    def weight(self, layer: str) -> torch.Tensor:
        """A layer's dense weight."""
        return self._state[f"{layer}.weight"].detach()

    def bound(self, name: str) -> Scheme:
        """The scheme called ``name``, with what it takes from the dense network."""
        if name not in self._bound:
            self._bound[name] = parse_scheme(name).bind([self.weight(layer.name) for layer in self._network.layers])
        return self._bound[name]

    def norms(self, layer: LayerSpec, scheme: Scheme) -> torch.Tensor:
        """``unit_norms`` of a whole layer. Those of units as small as single weights would need too much memory."""
        key = layer.name, scheme
        if key in self._norms:
            return self._norms[key]
        weight = self.weight(layer.name)
        norms = unit_norms(weight, scheme, layer.groups)
        if norms.numel() * SMALLEST_UNIT <= weight.numel():
            self._norms[key] = norms
        return norms


class _Picker:
    """The live filters, channels and groups of one model under one mapping, narrowed step by step."""

    def __init__(self, pruner: Pruner, mapping: Mapping, network: Network) -> None:
        self._network = network
        self._mapping = mapping
        self._pruner = pruner
        self._alive = [torch.ones(group.channels, dtype=torch.bool) for group in network.groups]
        self._filters: dict[str, torch.Tensor] = {}
        self._channels: dict[str, torch.Tensor] = {}

    def pick_filters(self) -> None:
        """Choose the filters to keep: once for a group whose producers agree, else for each producer alone."""
        for index, group in enumerate(self._network.groups):
            norms = {}
            for name in group.producers:
                scheme = parse_scheme(self._mapping[name].scheme)
                if scheme.removes == "filters":
                    norms[name] = self._pruner.norms(self._layer(name), scheme).reshape(1, -1, 1, 1)
            shared = shared_filters(group, self._mapping)
            if shared:
                norms = dict.fromkeys(norms, torch.stack([n.square() for n in norms.values()]).sum(dim=0).sqrt())
            for name, norm in norms.items():
                self._filters[name] = self._select(norm, self._layer(name)).reshape(-1)
            if shared and not group.fixed:
                self._alive[index] = self._filters[group.producers[0]]

    def pick_channels(self) -> None:
        """Choose the input channels to keep, among the live ones and by the norms of the filters that are left."""
        lone = {}
        for name, choice in self._mapping.items():
            scheme = parse_scheme(choice.scheme)
            if scheme.removes != "channels":
                continue
            layer, index = self._layer(name), self._network.reads[name]
            kept = self._inputs(layer).clone()
            norms, _ = self._live_norms(layer, scheme)
            kept[kept.clone()] = self._select(norms, layer).reshape(-1)
            self._channels[name] = kept
            if lone_reader(self._network, self._network.groups[index]) == name:
                lone[index] = kept
        for index, kept in lone.items():
            self._alive[index] = kept

    def masks(self) -> Masks:
        """Masks of everything that is not whole."""
        masks: Masks = {}
        for layer in self._network.layers:
            outputs = self._outputs(layer)
            masks[f"{layer.name}.weight"] = self._weight_mask(layer)
            if layer.bias:
                masks[f"{layer.name}.bias"] = outputs
            for batchnorm in self._network.batchnorms[layer.name]:
                self._silence(masks, batchnorm, outputs)
        for group, alive in zip(self._network.groups, self._alive, strict=True):
            for batchnorm in group.batchnorms:
                self._silence(masks, batchnorm, alive)
        return {name: mask for name, mask in masks.items() if not bool(mask.all())}

    def _weight_mask(self, layer: LayerSpec) -> torch.Tensor:
        """The choice's units on live filters and channels, nothing elsewhere; one True if all stays."""
        shape, choice = self._pruner.weight(layer.name).shape, self._mapping[layer.name]
        scheme = self._pruner.bound(choice.scheme)
        outputs, inputs = self._outputs(layer), self._inputs(layer).reshape(layer.groups, -1)
        live = outputs[:, None] & inputs.repeat_interleave(len(outputs) // layer.groups, dim=0)
        units = None
        if scheme.removes == "weights" and choice != DENSE:
            norms, small = self._live_norms(layer, scheme)
            units = mask_from_units(self._select(norms, layer, scheme), scheme, small, layer.live_groups(small[0]))
            if units.shape == shape:
                return units
        elif bool(live.all()):
            return torch.ones(1, dtype=torch.bool)
        mask = live.reshape(*live.shape, *[1] * (len(shape) - 2)).expand(shape).clone()
        return mask if units is None else mask.masked_scatter(mask, units)

    def _select(self, norms: torch.Tensor, layer: LayerSpec, scheme: Scheme | None = None) -> torch.Tensor:
        """The units that the layer's choice keeps; ``scheme``: what it names, bound to the dense network."""
        choice = self._mapping[layer.name]
        try:
            return select_units(norms, scheme or parse_scheme(choice.scheme), choice.rate)
        except PrunemapError as error:
            raise PrunemapError(f"layer {layer.name!r}: {error}") from None

    def _layer(self, name: str) -> LayerSpec:
        return self._network.layer(name)

    def _outputs(self, layer: LayerSpec) -> torch.Tensor:
        alive = self._alive[self._network.writes[layer.name]]
        return self._filters[layer.name] & alive if layer.name in self._filters else alive

    def _inputs(self, layer: LayerSpec) -> torch.Tensor:
        """Live inputs of the layer; after flattening there are several per channel."""
        if layer.name in self._channels:
            return self._channels[layer.name]
        alive = self._alive[self._network.reads[layer.name]]
        return alive.repeat_interleave(layer.in_channels // len(alive))

    def _live_norms(self, layer: LayerSpec, scheme: Scheme) -> tuple[torch.Tensor, tuple[int, ...]]:
        """Norms of the layer without dead filters and channels, and its weight's shape then.

        A grouped convolution's channels are never dead.
        """
        weight, outputs, inputs = self._pruner.weight(layer.name), self._outputs(layer), self._inputs(layer)
        if bool(outputs.all()) and (layer.groups > 1 or bool(inputs.all())):
            return self._pruner.norms(layer, scheme), tuple(weight.shape)
        weight = weight[outputs]
        weight = weight[:, inputs] if layer.groups == 1 else weight
        return unit_norms(weight, scheme, layer.live_groups(len(weight))), tuple(weight.shape)

    def _silence(self, masks: Masks, batchnorm: str, alive: torch.Tensor) -> None:
        """Mask scale and shift of a batch norm's dead channels."""
        for name in (f"{batchnorm}.weight", f"{batchnorm}.bias"):
            masks[name] = masks[name] & alive if name in masks else alive
