"""The configuration of a search: a YAML file, bundled or the user's own, and flags that override it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from ..agents import AGENTS, Agent
from ..envs.spec import Options, Part, ProblemSpec, spec_error
from ..pruning.errors import PrunemapError, unknown_name
from .yaml_lines import Document, read_yaml

CONFIGS = Path(__file__).parent / "configs"


class AgentSpec(Part):
    """One agent of a search."""

    name: str
    """A registered agent."""

    options: Options = Field(default_factory=dict)
    """The agent's own options."""

    @model_validator(mode="after")
    def _valid(self) -> AgentSpec:
        self.build()
        return self

    def build(self) -> Agent:
        """The agent itself; PrunemapError for an unknown name or option."""
        return AGENTS[self.name](**self.options)


class BudgetSpec(Part):
    """What each agent may spend, per seed."""

    evaluations: Annotated[int, Field(ge=1)]
    """Evaluations that may be asked for, repeats included."""

    seconds: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] | None = None
    """Seconds of evaluation, as they were recorded when each was done; no limit when left out."""


def usable_cpus() -> int:
    """Logical CPUs that this process may run on."""
    return len(os.sched_getaffinity(0))


class RunConfig(Part):
    """One search job."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    """Name of the run and of its folder."""

    problem: ProblemSpec
    """What is searched."""

    agents: tuple[AgentSpec, ...]
    """Who searches."""

    budget: BudgetSpec
    """What each agent may spend, per seed."""

    seeds: tuple[Annotated[int, Field(ge=0)], ...] = (0,)
    """Every agent searches once per seed."""

    workers: Annotated[int, Field(ge=1)] = Field(default_factory=usable_cpus)
    """Processes that evaluate mappings, one thread each; as many as there are usable CPUs when left out."""

    ray_address: str | None = None
    """Address of a running Ray cluster; Ray is started on this machine when left out."""

    @field_validator("agents")
    @classmethod
    def _distinct_agents(cls, agents: tuple[AgentSpec, ...]) -> tuple[AgentSpec, ...]:
        _one_of_each("agent", [agent.name for agent in agents])
        return agents

    @field_validator("seeds")
    @classmethod
    def _distinct_seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        _one_of_each("seed", seeds)
        return seeds

    def trials(self) -> Iterator[tuple[AgentSpec, int]]:
        """Every agent with every seed, seed by seed."""
        return ((agent, seed) for seed in self.seeds for agent in self.agents)

    def agent(self, name: str) -> AgentSpec:
        """The agent called ``name``; PrunemapError with the nearest names when the run has none."""
        by_name = {agent.name: agent for agent in self.agents}
        if name not in by_name:
            raise unknown_name("agent of this run:", name, by_name)
        return by_name[name]

    def resolved(self) -> RunConfig:
        """The same with the default options of every agent written out."""
        agents = [
            agent.model_copy(update={"options": agent.build().options.model_dump(mode="json")}) for agent in self.agents
        ]
        return self.model_copy(update={"agents": tuple(agents)})

    def to_yaml(self) -> str:
        """Everything written out, defaults included; ``load_config`` reads it back."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, width=120)


def bundled_configs() -> tuple[str, ...]:
    """Names of the configurations that come with prunemap."""
    return tuple(sorted(path.stem for path in CONFIGS.glob("*.yaml")))


def find_config(name: str) -> Path:
    """The file that ``name`` means: a path, or the name of a bundled configuration.

    Raises:
        PrunemapError: When there is neither such a file nor such a name.
    """
    path = Path(name)
    if path.is_file():
        return path
    if path.suffix in (".yaml", ".yml") or path.parent != Path():
        raise PrunemapError(f"{name}: no such configuration file")
    if name not in bundled_configs():
        raise unknown_name("configuration", name, bundled_configs())
    return CONFIGS / f"{name}.yaml"


def load_config(
    name: str, overrides: Sequence[tuple[str, Any, str]] = (), agents: Sequence[str] | None = None
) -> RunConfig:
    """Read and check a configuration.

    Args:
        name: A YAML file or the name of a bundled configuration.
        overrides: (dotted path, value, the flag that said so), applied in order before checking.
        agents: Names of the agents that shall search; those that the configuration lists keep their options there.

    Raises:
        PrunemapError: In one line: the file and line (or the flag), the key's path, what is wrong with it, and the
            nearest valid key or name.
    """
    document = read_yaml(find_config(name))
    if agents is not None:
        listed = {entry.get("name"): entry for entry in _entries(document.values.get("agents"))}
        document.put("agents", [listed.get(agent, {"name": agent}) for agent in agents], "--agents")
    for dotted, value, flag in overrides:
        document.put(dotted, value, flag)
    return _checked(document)


def parse_override(text: str) -> tuple[str, Any, str]:
    """Read ``key.path=value`` of ``--set``; the value is YAML."""
    flag = f"--set {text}"
    dotted, equals, value = text.partition("=")
    if not equals or not all(dotted.split(".")):
        raise PrunemapError(f"{flag}: expected key.path=value, for instance budget.evaluations=20")
    try:
        return dotted, yaml.safe_load(value), flag
    except yaml.YAMLError:
        raise PrunemapError(f"{flag}: {value!r} is not a YAML value") from None


def _checked(document: Document) -> RunConfig:
    try:
        return RunConfig.model_validate(document.values)
    except ValidationError as error:
        where = document.where(error.errors()[0]["loc"])
        raise PrunemapError(f"{where}: {spec_error(error, RunConfig)}") from None


def _entries(values: Any) -> list[dict[str, Any]]:
    return [entry for entry in values if isinstance(entry, dict)] if isinstance(values, list) else []


def _one_of_each(what: str, values: Sequence[object]) -> None:
    if not values:
        raise PrunemapError(f"at least one {what} is needed")
    for value in values:
        if values.count(value) > 1:
            raise PrunemapError(f"{what} {value!r} is listed twice")
