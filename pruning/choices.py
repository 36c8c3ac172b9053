"""Whether a choice fits a layer, and which of several choices with the same mask stands for all of them."""

from __future__ import annotations

from functools import lru_cache

from .errors import PrunemapError
from .mapping import DENSE, Choice, Mapping
from .network import ChannelGroup, LayerSpec, Network
from .schemes import SCHEMES, Scheme, parse_scheme, pools


def misfit(layer: LayerSpec, choice: Choice) -> str | None:
    """None when ``choice`` can prune ``layer``, else the reason in words."""
    scheme = parse_scheme(choice.scheme)
    reason = scheme.fits(layer)
    if reason is None and choice.rate < scheme.smallest_rate:
        return f"its smallest rate is {scheme.smallest_rate:g}, not {choice.rate:g}"
    return reason


@lru_cache(maxsize=1 << 16)
def canonical_choice(layer: LayerSpec, choice: Choice) -> Choice:
    """The choice that stands for all that give ``layer`` the same mask.

    Anything that keeps all units is dense; ``simd:8`` on four filters is ``column``, which on a 1x1 kernel is
    ``channel``; blocks larger than the layer shrink to it; where one unit is kept, any higher rate is the same.

    Raises:
        PrunemapError: When the choice does not fit the layer.
    """
    reason = misfit(layer, choice)
    if reason is not None:
        kernel = f"{layer.kernel[0]}x{layer.kernel[1]}"
        raise PrunemapError(f"layer {layer.name!r} ({layer.kind} {kernel}): {choice.scheme} does not fit: {reason}")
    scheme = parse_scheme(choice.scheme)
    competing = pools(scheme, layer.weight_shape, layer.groups)
    kept = [scheme.kept(pool.units, choice.rate) for pool in competing]
    if scheme.smallest_rate == 1.0 and kept == [pool.units for pool in competing]:
        return DENSE
    rate = choice.rate
    if max(kept) == 1:
        rate = max(pool.units for pool in competing) * scheme.smallest_rate
    return Choice(_representative(layer, scheme).name, rate)


def canonical_mapping(network: Network, mapping: Mapping) -> Mapping:
    """``mapping`` with every choice made canonical: equal mappings give equal masks, and keys and seeds of them.

    Raises:
        PrunemapError: For a layer that the network has not, or a choice that does not fit its layer.
    """
    return Mapping({name: canonical_choice(network.layer(name), choice) for name, choice in mapping.items()})


def shared_filters(group: ChannelGroup, mapping: Mapping) -> Choice | None:
    """The choice to remove filters that every producer of ``group`` made alike: then one set is kept for all."""
    chosen = {mapping[name] for name in group.producers}
    choice = chosen.pop() if len(chosen) == 1 else DENSE
    return choice if parse_scheme(choice.scheme).removes == "filters" else None


def lone_reader(network: Network, group: ChannelGroup) -> str | None:
    """The layer whose input channels are the group's, if it alone decides which of them are needed."""
    if group.fixed or len(group.consumers) != 1:
        return None
    name = group.consumers[0]
    return name if network.layer(name).in_channels == group.channels else None


@lru_cache(maxsize=1 << 12)
def _representative(layer: LayerSpec, scheme: Scheme) -> Scheme:
    """The simplest scheme that prunes ``layer`` as ``scheme`` does: channels first, then fewest parameters."""
    shape, groups = layer.weight_shape, layer.groups
    filters, channels = shape[0] // groups, shape[1]
    rows, columns = scheme.block(filters, channels)
    similar = [SCHEMES[family].with_block(min(rows, filters), min(columns, channels)) for family in SCHEMES]
    candidates = [other for other in similar if other is not None and other.fits(layer) is None]
    candidates.sort(key=lambda other: (other.removes == "weights", len(other.parameters), other.family))
    for other in candidates:
        if other.signature(shape, groups) == scheme.signature(shape, groups):
            return other
    return scheme.clipped(filters, channels)
