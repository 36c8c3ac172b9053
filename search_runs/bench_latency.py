"""The command ``bench latency``: predicted against measured latency of random mappings."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ..envs import build_network, default_input_shape
from ..envs.datasets import Split
from ..envs.training import Phase, train
from ..latency import MODELS, Profile, cached_profile
from ..latency.validation import HALVES, Trial, agreement, by_scheme, draw_mappings, validate
from ..pruning import Network, capture
from ..pruning.errors import PrunemapError
from ..pruning.mapping import Mapping
from ..pruning.schemes import SCHEMES
from . import pictures
from .progress import notice, progress_bar
from .tables import Row, number, percent, remark, show, text

FEWEST = 4
_EVERY_FAMILY = tuple(SCHEMES[name].example for name in SCHEMES if name != "dense")
_PRICED = {"channels": ("channel", "filter"), "contribution": ("filter",)}
"""Schemes of models that do not price all of them."""
_IMAGES, _NOISE, _PATCH = 64, 0.5, 4
_PHASE = Phase(epochs=2, lr=0.05, batch=8, momentum=0.9, weight_decay=1e-4, schedule="one-cycle", device="cpu")

_COLUMNS = (
    text("half"),
    number("mappings", "mappings"),
    percent("mean", "mean |error|", 1),
    percent("largest", "largest", 1),
    percent("within", "within 10 %", 0),
    number("tau", "Kendall tau", ".3f"),
    percent("inside", "inside the band", 0),
    percent("constant", "a constant errs by", 1),
    percent("of_dense", "mean |error| of dense's share", 1),
)
_BY_SCHEME = (
    text("scheme"),
    number("layers", "layers"),
    percent("share", "of all time", 1),
    percent("mean", "mean |error|", 1),
    percent("bias", "bias", 1),
)


def latency(args: Namespace) -> int:
    """Profile for every model, then draw mappings, train a little, compile, measure, and judge all models by that."""
    if args.mappings < FEWEST:
        raise PrunemapError(f"--mappings {args.mappings}: at least {FEWEST} are needed to tell anything")
    if args.profile is not None and args.model is not None:
        raise PrunemapError(
            "--model: a profile file has the points of the model that it was measured for; leave it out"
        )
    if args.plot is not None:
        pictures.need_matplotlib()
    shape = args.shape or default_input_shape(args.network, **args.options)
    model = build_network(args.network, seed=args.seed, **args.options).eval()
    structure = capture(model, torch.zeros(1, *shape))
    profiles = _profiles(args, structure)
    drawn = draw_mappings(profiles[0], args.mappings, args.highest_rate, np.random.default_rng(args.seed))
    notice(f"training {args.network} for {_PHASE.epochs * _IMAGES // _PHASE.batch} steps")
    train_briefly(model, structure, args.seed)
    with progress_bar() as report:
        trials = validate(profiles[0], model, torch.zeros(1, *shape), drawn, report)
    known = [profile.with_weights(model.state_dict()) for profile in profiles]
    judged = [(profile, [trial.judging(profile) for trial in trials]) for profile in known]
    _show(args, judged)
    if args.plot is not None:
        profile, trials = judged[0]
        pictures.predictions(trials, profile, args.network, args.plot)
        notice(f"drawn to {args.plot}")
    return 0


def train_briefly(model: nn.Module, structure: Network, seed: int) -> None:
    """Train in place on generated images (one coarse random pattern per class, and noise), a few dozen steps.

    Enough that filters differ in norm as they do in trained networks; accuracy does not matter here.
    """
    generator = torch.Generator().manual_seed(seed)
    channels, height, width = structure.input_shape
    classes = structure.nodes[-1].shape[0]
    coarse = torch.randn(classes, channels, min(_PATCH, height), min(_PATCH, width), generator=generator)
    labels = torch.randint(classes, (_IMAGES,), generator=generator)
    patterns = functional.interpolate(coarse[labels], size=(height, width), mode="nearest")
    noise = torch.randn(patterns.shape, generator=generator)
    train(model, Split((patterns + _NOISE * noise).contiguous(), labels), _PHASE, seed)


def _profiles(args: Namespace, structure: Network) -> list[Profile]:
    """The file that was named, or what every model needs, measured here."""
    if args.profile is not None:
        known = Profile.load(args.profile)
        known.check_machine()
        known.predict(structure, Mapping())
        return [known]
    models: Sequence[str] = args.model or ("table",)
    for name in models:
        MODELS[name]  # refused before anything is measured
    schemes = args.schemes or [s for s in _EVERY_FAMILY if all(s in _PRICED.get(m, _EVERY_FAMILY) for m in models)]
    return [_profile(args, structure, schemes, name) for name in models]


def _profile(args: Namespace, structure: Network, schemes: Sequence[str], model: str) -> Profile:
    with progress_bar() as report:
        return cached_profile(structure, schemes, args.rates, args.threads, isa=args.isa, model=model, progress=report)


def _show(args: Namespace, judged: Sequence[tuple[Profile, Sequence[Trial]]]) -> None:
    found = [(profile, trials, *_rows(profile, trials)) for profile, trials in judged]
    if args.format != "table":
        show([row for _, _, halves, schemes in found for row in halves + schemes], (), args.format)
        return
    for profile, trials, halves, schemes in found:
        show(
            halves,
            _COLUMNS,
            title=f"{args.network}, model {profile.planned_for}, whole networks\n{profile.machine.fingerprint()}",
        )
        show(schemes, _BY_SCHEME, title="layers inside these networks, by their scheme")
        dense = np.array([trial.dense_ms for trial in trials])
        remark(
            f"dense: {profile.dense_ms:.4f} ms in the profile, {dense.min():.4f} to {dense.max():.4f} ms beside the "
            f"mappings; {halves[-1]['unstable']} of {len(trials)} measurements unstable, "
            f"{halves[-1]['disturbed']} disturbed"
        )


def _rows(profile: Profile, trials: Sequence[Trial]) -> tuple[list[Row], list[Row]]:
    """One model's rows of the halves and of both, and of the schemes."""
    model, dense_ms = {"model": profile.planned_for}, profile.predict(profile.network, Mapping()).ms
    groups = {half: [trial for trial in trials if trial.drawn.half == half] for half in HALVES} | {"all": trials}
    halves = [model | _row(half, own, dense_ms) for half, own in groups.items()]
    return halves, [model | asdict(entry) for entry in by_scheme(profile, trials)]


def _row(half: str, trials: Sequence[Trial], dense_ms: float) -> Row:
    flags = {
        "unstable": sum(trial.measured.unstable for trial in trials),
        "disturbed": sum(trial.measured.disturbed for trial in trials),
    }
    return {"half": half, "mappings": len(trials)} | asdict(agreement(trials, dense_ms)) | flags
