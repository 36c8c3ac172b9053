from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from prunemap.pruning.errors import PrunemapError
from prunemap.search_runs.config import bundled_configs, load_config, parse_override
from prunemap.search_runs.yaml_lines import parse_yaml

Changed = Callable[[str, object], Path]


@pytest.mark.parametrize("name", bundled_configs())
def test_bundled_configs_are_valid_and_named_as_their_files(name: str) -> None:
    assert load_config(name).name == name


def test_resolved_config_reads_back_equal(tiny: Path, tmp_path: Path) -> None:
    config = load_config(str(tiny)).resolved()
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    assert load_config(str(tmp_path / "config.yaml")) == config
    assert "baseline_decay" in config.agents[0].options


@pytest.mark.parametrize(
    ("flag", "read"),
    [
        ("problem.network.options.width=4", lambda config: config.problem.network.options == {"width": 4}),
        ("agents.random.options.batch=7", lambda config: config.agents[1].options == {"batch": 7}),
        ("agents.0={name: rule-based}", lambda config: config.agents[0].name == "rule-based"),
        ("problem.choices.rates=[2, 8]", lambda config: config.problem.choices.rates == (2.0, 8.0)),
        ("problem.reward.options.weight=0.1", lambda config: config.problem.reward.options == {"weight": 0.1}),
        ("budget.seconds=1e1", lambda config: config.budget.seconds == 10.0),
    ],
)
def test_set(tiny: Path, flag: str, read: Callable[..., bool]) -> None:
    assert read(load_config(str(tiny), [parse_override(flag)]))


def test_agents_keep_their_options(tiny: Path) -> None:
    config = load_config(str(tiny), agents=["rule-based", "random"])
    assert [(agent.name, agent.options) for agent in config.agents] == [("rule-based", {}), ("random", {"batch": 5})]


@pytest.mark.parametrize(
    ("dotted", "value", "told"),
    [
        ("budgets", 3, "budgets: unknown key; did you mean budget?"),
        ("problem.network.nme", "resnet8", "problem.network.nme: unknown key; did you mean name?"),
        ("problem.network.name", "resnet9", "unknown network 'resnet9'; did you mean resnet8"),
        ("problem.data.name", "digit", "unknown dataset 'digit'; did you mean digits"),
        ("problem.choices.schemes", ["simd8"], "simd"),
        ("problem.choices.rates", [0.5], "problem.choices.rates[0]: must be >= 1, got 0.5"),
        ("problem.reward", {"kind": "weightd"}, "unknown reward 'weightd'; did you mean weighted?"),
        ("agents.0.name", "reinforced", "unknown agent 'reinforced'; did you mean reinforce"),
        ("agents.1.options", {"bach": 3}, "did you mean batch?"),
        ("agents.1.options", {"batch": 0}, "batch: must be >= 1, got 0"),
        ("agents.1", {"name": "reinforce"}, "agent 'reinforce' is listed twice"),
        ("agents", [], "agents: at least one agent is needed"),
        ("seeds", [], "seeds: at least one seed is needed"),
        ("budget", {}, "budget.evaluations: is missing"),
        ("seeds", [1, 1], "seed 1 is listed twice"),
        ("workers", 0, "workers: must be >= 1, got 0"),
        ("name", "../up", "name: "),
    ],
)
def test_wrong_values_are_told_with_line_and_key(changed: Changed, dotted: str, value: object, told: str) -> None:
    path = changed(dotted, value)
    with pytest.raises(PrunemapError) as caught:
        load_config(str(path))
    message = str(caught.value)
    assert told in message
    assert "\n" not in message
    file, line, _ = message.split(":", 2)
    assert file == str(path)
    key = dotted.split(".")[0]
    block = [text.partition(":")[0] for text in path.read_text().splitlines()[: int(line)] if text[0] not in " -"]
    assert block[-1] == key


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: 1\nb: [1, 2\n", ":3: not valid YAML: "),
        ("a: 1\na: 2\n", ":2: key 'a' is given twice (first at x.yaml:1)"),
        ("- 1\n", "expected keys and values"),
        ("", "expected keys and values"),
        ("a: !!python/object/apply:os.system [ls]\n", ":1: not valid YAML: could not determine a constructor"),
        ("a: \x00", "not valid YAML"),
        ("a: 2020-99-99\n", "not valid YAML"),
    ],
)
def test_broken_yaml(text: str, told: str) -> None:
    with pytest.raises(PrunemapError) as caught:
        parse_yaml(text, "x.yaml")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_aliases_that_hold_themselves_end() -> None:
    document = parse_yaml("a: &a {b: *a}\nc: &c [1, *c]\n", "x.yaml")
    assert document.where(("c", 0)) == "x.yaml:2"


@pytest.mark.parametrize(
    ("flag", "told"),
    [
        ("budget.evaluations", "expected key.path=value"),
        ("agents.dqn.options.x=1", "unknown entry in --set agents.dqn.options.x=1: 'dqn'"),
        ("budget.evaluations.x=1", "has no keys"),
        ("budget.evaluations=many", "--set budget.evaluations=many: budget.evaluations: "),
        ("budget.evaluatons=3", "budget.evaluatons: unknown key; did you mean evaluations?"),
        ("budget.evaluations=[", "not a YAML value"),
        ("problem.reward.kind=budgett", "unknown reward 'budgett'; did you mean budget?"),
        ("problem.reward.options.wait=1", "wait: unknown key; did you mean weight?"),
        ("agents.random.options.bach=1", "did you mean batch?"),
    ],
)
def test_wrong_overrides_blame_the_flag(tiny: Path, flag: str, told: str) -> None:
    with pytest.raises(PrunemapError) as caught:
        load_config(str(tiny), [parse_override(flag)])
    assert told in str(caught.value)
    assert flag in str(caught.value)
    assert str(tiny) not in str(caught.value)


def test_one_mistake_is_told_once(tiny: Path) -> None:
    with pytest.raises(PrunemapError) as caught:
        load_config(str(tiny), agents=["foo"])
    told = "unknown agent 'foo'; known: ppo, random, reinforce, rule-based, uniform"
    assert str(caught.value) == f"--agents: agents[0]: {told}"


@pytest.mark.parametrize(("name", "told"), [("digit", "did you mean digits?"), ("no/such.yaml", "no such")])
def test_unknown_configs(name: str, told: str) -> None:
    with pytest.raises(PrunemapError, match=told):
        load_config(name)


def test_config_is_frozen(tiny: Path) -> None:
    config = load_config(str(tiny))
    with pytest.raises(ValueError, match="frozen"):
        config.workers = 3  # type: ignore[misc]
    assert yaml.safe_load(config.to_yaml())["workers"] == 2
