"""The part of a search's configuration that describes its problem, and how its errors are told."""

from __future__ import annotations

import difflib
from collections.abc import Mapping as AbstractMapping
from collections.abc import Sequence
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator, model_validator

from ..pruning.errors import PrunemapError
from ..pruning.mapping import DENSE, Choice
from ..pruning.schemes import parse_scheme
from .accuracy import Recipe
from .datasets import DATASETS
from .networks import NETWORKS
from .rewards import REWARDS, Reward

Options = dict[str, JsonValue]
Rate = Annotated[float, Field(ge=1.0, allow_inf_nan=False)]

_SHORTER = (
    ("Input should be ", "must be "),
    ("greater than or equal to ", ">= "),
    ("less than or equal to ", "<= "),
    ("greater than ", "> "),
    ("less than ", "< "),
)


class Part(BaseModel):
    """A part of a configuration: frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class NetworkSpec(Part):
    """Which network is pruned."""

    name: str
    """A registered network, or ``package.module:function`` for one of your own."""

    options: Options = Field(default_factory=dict)
    """Options of the network; the data's classes and image channels are filled in where they are left out."""

    weights: str | None = None
    """File of a trained state dict (safetensors, or .pth of tensors only); left out, the network is trained here."""

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if ":" not in name:
            NETWORKS[name]
        return name


class DataSpec(Part):
    """Which data it is trained on."""

    name: str
    """A registered dataset."""

    options: Options = Field(default_factory=dict)
    """Options of the dataset, for instance the ``folder`` of one that lies on disk."""

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        DATASETS[name]
        return name


class ChoicesSpec(Part):
    """What may be chosen for a layer: dense, or any of the schemes at any of the rates."""

    schemes: tuple[str, ...]
    """Pruning schemes; dense is always allowed and need not be listed."""

    rates: tuple[Rate, ...]
    """Rates: all weights of a layer / weights kept."""

    skip: tuple[str, ...] = ()
    """Layers that stay dense."""

    @field_validator("schemes")
    @classmethod
    def _canonical(cls, schemes: tuple[str, ...]) -> tuple[str, ...]:
        return _distinct(tuple(parse_scheme(scheme).name for scheme in schemes))

    @field_validator("rates", "skip")
    @classmethod
    def _each_once(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        return _distinct(values)

    def catalogue(self) -> tuple[Choice, ...]:
        """Dense, then every scheme at every rate, in the order given: the same for every network."""
        pruned = (Choice(scheme, rate) for scheme in self.schemes for rate in self.rates)
        return tuple(dict.fromkeys((DENSE, *pruned)))


class RewardSpec(Part):
    """What a search maximises."""

    kind: str = "weighted"
    """A registered reward."""

    options: Options = Field(default_factory=dict)
    """Options of the reward."""

    @model_validator(mode="after")
    def _valid(self) -> RewardSpec:
        self.build()
        return self

    def build(self) -> Reward:
        """The reward itself; PrunemapError for an unknown kind or option."""
        kind = REWARDS[self.kind]
        try:
            return kind(**self.options)  # type: ignore[arg-type]  # pydantic checks the values
        except ValidationError as error:
            raise spec_error(error, kind, "options") from None


class LatencySpec(Part):
    """Where latencies come from."""

    profile: str = "auto"
    """``auto``: this machine's profile, measured at first use and kept in the cache folder; or a profile file."""

    threads: Annotated[int, Field(ge=1)] = 1
    """Threads of one inference."""

    isa: str = "auto"
    """Instruction set of the kernels; ``auto`` takes the best that the machine has."""


class ProblemSpec(Part):
    """A problem as a configuration file describes it."""

    network: NetworkSpec
    """Which network is pruned."""

    data: DataSpec
    """Which data it is trained on."""

    recipe: Recipe = Recipe()
    """How the dense network is trained and a pruned one retrained."""

    choices: ChoicesSpec
    """What may be chosen for a layer."""

    reward: RewardSpec = RewardSpec()
    """What a search maximises."""

    latency: LatencySpec = LatencySpec()
    """Where latencies come from."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of everything random in the problem: initial weights, batches, retraining."""

    @classmethod
    def from_dict(cls, data: AbstractMapping[str, Any]) -> ProblemSpec:
        """Check plain values (from YAML or JSON).

        Raises:
            PrunemapError: Naming each key that is unknown, missing or has a wrong value.
        """
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise spec_error(error, cls, "problem") from None


def spec_error(error: ValidationError, model: type[BaseModel], root: str = "") -> PrunemapError:
    """Tell a validation error in one line: every wrong key by its path, with what would be right.

    Args:
        error: What pydantic raised.
        model: The model that was validated; its field names are offered for unknown keys.
        root: Name of the whole, put before each path.
    """
    return PrunemapError("; ".join(_told(dict(detail), model, root) for detail in error.errors()))


def _told(detail: dict[str, Any], model: type[BaseModel], root: str) -> str:
    loc: Sequence[int | str] = detail["loc"]
    path = root + "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in loc)
    path = path.removeprefix(".") or model.__name__
    if detail["type"] == "extra_forbidden":
        return f"{path}: unknown key{_nearest(str(loc[-1]), _keys_at(model, loc[:-1]))}"
    if detail["type"] == "missing":
        return f"{path}: is missing"
    if detail["type"] == "value_error":
        return f"{path}: {detail['ctx']['error']}"
    message = detail["msg"]
    for long, short in _SHORTER:
        message = message.replace(long, short)
    return f"{path}: {message}, got {detail['input']!r}"


def _nearest(key: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; known: {', '.join(known)}" if known else ""


def _keys_at(model: type[BaseModel], loc: Sequence[int | str]) -> Sequence[str]:
    """Field names of the model that lies at ``loc`` inside ``model``; none where it cannot be told."""
    here: type[BaseModel] | None = model
    for key in loc:
        if isinstance(key, str) and here is not None:
            field = here.model_fields.get(key)
            here = _model_in(field.annotation) if field else None
    return list(here.model_fields) if here else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that an annotation is, or that its items or alternatives are."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    twice = sorted({str(value) for value in values if values.count(value) > 1})
    if twice:
        raise PrunemapError(f"listed twice: {', '.join(twice)}")
    return values


DEFAULT_SPEC = ProblemSpec(
    network=NetworkSpec(name="resnet8", options={"width": 4}),
    data=DataSpec(name="digits"),
    choices=ChoicesSpec(schemes=("unstructured", "simd:4", "filter"), rates=(2.0, 4.0)),
)
"""A small problem that is ready in seconds: what the Gymnasium environments are made of when given nothing."""
