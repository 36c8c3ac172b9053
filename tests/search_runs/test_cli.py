from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

from prunemap.envs import build_network
from prunemap.envs.weights import save_weights
from prunemap.kernels import isas
from prunemap.search_runs import cli
from prunemap.search_runs.listings import KINDS

Changed = Callable[[str, object], Path]
Command = Callable[..., tuple[int, str, str]]

NETWORKS = """
import torch
from torch import nn

class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3)
        self.body = nn.Sequential(nn.ReLU(), nn.InstanceNorm2d(4))
        self.head = nn.Linear(4, 10)

    def forward(self, x):
        return self.head(torch.flatten(nn.functional.adaptive_avg_pool2d(self.body(self.stem(x)), 1), 1))

def odd():
    return Odd()
"""


@pytest.fixture
def own_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's with a network that cannot be captured."""
    (tmp_path / "own_networks.py").write_text(NETWORKS)
    monkeypatch.syspath_prepend(tmp_path)
    return "own_networks"


def one_line(errors: str) -> str:
    """What was told: the last line, and the only one that starts with the program's name."""
    lines = errors.strip().splitlines()
    assert [line for line in lines if line.startswith("prunemap: ")] == [lines[-1]]
    assert "Traceback" not in errors
    return lines[-1]


@pytest.mark.parametrize(
    ("dotted", "value", "told"),
    [
        ("problem.network.name", "resnet80", "unknown network 'resnet80'; did you mean resnet8"),
        ("problem.choices.schemes", ["simdd:8"], "simd"),
        ("problem.choices.schemes", ["simd:0"], "simd"),
        ("agents.0.name", "reinforse", "unknown agent 'reinforse'; did you mean reinforce"),
        ("problem.data.name", "cifar", "unknown dataset 'cifar'; did you mean cifar10"),
        ("problem.choices.rates", [0.9], "must be >= 1, got 0.9"),
        ("problem.recipe.fast_epoch", 1, "unknown key; did you mean fast_epochs?"),
        ("problem.network.options", {"widht": 2}, "did you mean width?"),
        ("problem.choices.skip", ["conv9"], "conv9"),
        ("problem.latency", {"profile": "none.parquet"}, "none.parquet"),
        ("problem.latency", {"isa": "avx1024"}, "avx1024"),
        ("problem.data", {"name": "cifar10", "options": {"folder": "/no/such/folder"}}, "/no/such/folder"),
        ("problem.data", {"name": "cifar10"}, "folder"),
    ],
)
def test_bad_input_is_one_line_and_makes_no_run(
    command: Command, changed: Changed, tmp_path: Path, dotted: str, value: object, told: str
) -> None:
    status, output, errors = command("search", changed(dotted, value), "--runs", tmp_path / "runs")
    assert status == 2
    assert output == ""
    assert told in one_line(errors)
    assert not (tmp_path / "runs").exists()


def test_a_pickled_data_set_is_refused(command: Command, changed: Changed, tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(b"\x80\x04pickle")
    config = changed("problem.data", {"name": "cifar10", "options": {"folder": str(folder)}})
    status, _, errors = command("search", config, "--runs", tmp_path / "runs")
    assert status == 2
    assert "binary" in one_line(errors)


def test_an_unsupported_module_is_named(command: Command, changed: Changed, own_networks: str, tmp_path: Path) -> None:
    config = changed("problem.network", {"name": f"{own_networks}:odd"})
    status, _, errors = command("search", config, "--runs", tmp_path / "runs")
    assert status == 2
    assert "body.1" in one_line(errors)
    assert "InstanceNorm2d" in one_line(errors)


def test_weights_that_do_not_fit(command: Command, changed: Changed, tmp_path: Path) -> None:
    weights = tmp_path / "dense.safetensors"
    save_weights(build_network("resnet8", width=4, in_channels=1), weights)
    config = changed("problem.network", {"name": "resnet8", "options": {"width": 2}, "weights": str(weights)})
    status, _, errors = command("search", config, "--runs", tmp_path / "runs")
    assert status == 2
    assert "do not fit the network; wrong shape: conv1.weight is (4, 1, 3, 3), needs (2, 1, 3, 3)" in one_line(errors)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--scheme", "block-row:4x4"], "block-row:4x4"),
        (["--scheme", "simd:8", "--rate", "0.5"], "rate 0.5"),
        (["--network", "resnet99"], "unknown network 'resnet99'"),
        (["--peers", "onnx"], "onnx"),
        (["--isa", "sse"], "unknown ISA 'sse'"),
        (["--options", "widht=3"], "did you mean width?"),
    ],
)
@pytest.mark.parametrize("what", ["network", "kernels"])
def test_bad_input_of_benchmarks(command: Command, what: str, words: list[str], told: str) -> None:
    if what == "kernels" and "--peers" in words:
        words, told = ["--layers", "conv9*"], "--layers conv9*: no layer matches"
    status, _, errors = command("bench", what, "--network", "resnet8", *words)
    assert status == 2
    assert told in one_line(errors)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "required: COMMAND"),
        (["serch"], "invalid choice: 'serch'"),
        (["search"], "required: config"),
        (["search", "digits", "--worker", "2"], "unrecognized arguments: --worker 2"),
        (["search", "digits", "--seeds", "a"], "argument --seeds: expected 0,1,2, got 'a'"),
        (["list", "agent"], "invalid choice: 'agent'"),
        (["status", "digits", "--format", "yaml"], "invalid choice: 'yaml'"),
        (["bench", "network", "--network", "lenet5", "--shape", "3x3"], "argument --shape: expected CxHxW"),
        (["bench", "network", "--network", "lenet5", "--shape", "axb"], "argument --shape: expected CxHxW"),
        (["bench", "network", "--network", "lenet5", "--shape", "3x0x3"], "argument --shape: expected CxHxW"),
        (["bench", "kernels", "--network", "lenet5", "--rate", "4,x"], "argument --rate: expected 4,10, got '4,x'"),
        (["bench", "network", "--network", "lenet5", "--threads", "0"], "argument --threads: expected a number >= 1"),
        (["bench", "network", "--network", "lenet5", "--threads", "-1"], "argument --threads: expected a number >= 1"),
    ],
)
def test_wrong_usage_is_one_line(command: Command, words: list[str], told: str) -> None:
    status, _, errors = command(*words)
    assert status == 2
    assert told in one_line(errors)
    assert len(errors.splitlines()) == 1


@pytest.mark.parametrize("verb", ["resume", "status", "compare", "replay"])
def test_unknown_runs(command: Command, tmp_path: Path, verb: str) -> None:
    status, _, errors = command(verb, "digits", "--runs", tmp_path)
    assert status == 2
    assert "no such run" in one_line(errors)
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "config.yaml").touch()
    assert "did you mean digits?" in one_line(command(verb, "digit", "--runs", tmp_path)[2])


def test_defects_are_logged_not_shown(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(args: object) -> int:
        raise ZeroDivisionError("nobody foresaw it")

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr("prunemap.search_runs.listings.listing", broken)
    status, _, errors = command("list", "agents")
    assert status == 1
    line = one_line(errors)
    assert "ZeroDivisionError: nobody foresaw it" in line
    log = Path(line.rpartition("details in ")[2].rstrip(")"))
    assert "Traceback" in log.read_text()
    status, _, errors = command("list", "agents", "--debug")
    assert status == 1
    assert "Traceback" in errors


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_listings_in_every_format(command: Command, tmp_path: Path, kind: str) -> None:
    def listed(form: str) -> str:
        status, output, errors = command("list", kind, "--format", form, "--runs", tmp_path)
        assert (status, errors) == (0, "")
        return output

    rows = json.loads(listed("json"))
    assert [dict(row) for row in csv.DictReader(io.StringIO(listed("csv")))] == [
        {key: str(value) for key, value in row.items()} for row in rows
    ]
    table = listed("table")
    assert all(str(next(iter(row.values()))) in table for row in rows)
    assert bool(rows) == (kind != "runs")


def test_all_that_is_offered_has_a_command() -> None:
    assert set(cli.LISTS) == set(KINDS)


def test_dry_run_prints_the_plan_and_a_configuration(command: Command, tiny: Path, tmp_path: Path) -> None:
    status, output, errors = command("search", tiny, "--dry-run", "--evaluations", 3, "--runs", tmp_path / "runs")
    assert status == 0
    assert "2 agent(s) x 1 seed(s) x 3 evaluations = 6" in errors
    assert not (tmp_path / "runs").exists()
    (tmp_path / "again.yaml").write_text(output)
    assert command("search", tmp_path / "again.yaml", "--dry-run")[1] == output


def test_profile_is_built_shown_and_written(command: Command, tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / "tiny.parquet"
    status, output, errors = command("profile", tiny, "--format", "json", "--out", file)
    assert status == 0, errors
    rows = json.loads(output)
    assert {row["scheme"] for row in rows} == {"dense", "simd:2", "filter"}
    assert all(row["ms"] >= 0.0 for row in rows)
    assert all(row["of_dense"] == 1.0 for row in rows if row["scheme"] == "dense")
    assert json.loads(command("profile", file, "--format", "json")[1]) == rows
    shown = command("profile", file, "--show", "--plot", tmp_path / "costs.png")[1]
    assert "layer2.0.conv1" in shown
    assert "PPR" in shown
    assert (tmp_path / "costs.png").read_bytes().startswith(b"\x89PNG")
    assert "--set" in one_line(command("profile", file, "--set", "seed=1")[2])


BENCHED = ("--network", "resnet8", "--options", "width=4", "--scheme", "simd:4", "--rate", "2")


def test_bench_network(command: Command) -> None:
    status, output, errors = command("bench", "network", *BENCHED, "--rate", "2,8", "--format", "json")
    assert status == 0, errors
    rows = json.loads(output)
    assert [row["network"] for row in rows] == ["dense", "simd:4@2", "simd:4@8"]
    assert rows[0]["of_dense"] == 1.0
    assert all(row["of_dense"] > 0.0 and row["of_peer"] is None for row in rows)
    assert max(row["error"] for row in rows) < 1e-5
    assert all(0 < row["p10_ms"] <= row["median_ms"] <= row["p90_ms"] for row in rows)
    assert all(isinstance(row[flag], bool) for row in rows for flag in ("unstable", "disturbed"))


@pytest.mark.parametrize("isa", isas())
def test_bench_kernels(command: Command, isa: str) -> None:
    words = ("bench", "kernels", *BENCHED, "--isa", isa)
    status, output, errors = command(*words, "--format", "json")
    assert status == 0, errors
    rows = json.loads(output)
    assert [row["layer"] for row in rows[-2:]] == ["geometric mean", "all, by time"]
    layers = {name: row for row in rows[:-2] for name in row["layers"]}
    assert layers["conv1"]["choice"] == layers["fc"]["choice"] == "dense"
    assert {row["choice"] for name, row in layers.items() if "conv" in name and name != "conv1"} == {"simd:4@2"}
    assert len(rows[-1]["layers"]) == len(layers) - 2
    for row in rows:
        assert all(
            row[f"{way}_{what}"] > 0.0 for way in ("hot", "cold", "in_place") for what in ("of_roof", "of_dense")
        )


def test_bench_kernels_fits_a_terminal(command: Command) -> None:
    status, output, errors = command("bench", "kernels", *BENCHED, "--layers", "layer2*", "--scheme", "dense")
    assert status == 0, errors
    assert "layer2.0.conv1" in output
    assert "geometric mean" in output
    assert "layer1" not in output
    assert max(map(len, map(str.rstrip, output.splitlines()))) <= 120


@pytest.mark.parametrize("isa", isas())
def test_bench_roof(command: Command, isa: str) -> None:
    status, output, errors = command("bench", "roof", "--isa", isa, "--format", "json")
    assert status == 0, errors
    rows = json.loads(output)
    assert {row["loop"] for row in rows} == {"registers", "aligned", "misaligned", "broadcast", "read"}
    assert {row["threads"] for row in rows if row["loop"] == "registers"} == {1, 2}
    assert all(row["value"] > 0.0 for row in rows)


def test_doctor(command: Command) -> None:
    status, output, _ = command("doctor", "--format", "json")
    assert status == 0
    found = {row["what"]: row["found"] for row in json.loads(output)}
    assert {"CPU", "instruction sets", "governor", "/dev/shm", "ray", "A/A latency"} <= set(found)
    assert all(found.values())


def test_help_loads_neither_torch_nor_ray() -> None:
    code = (
        "import sys; from prunemap.search_runs.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: assert not end.code\n"
        "sys.exit(bool({'torch', 'ray', 'pydantic'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-P", "-c", code], check=False, stdout=subprocess.DEVNULL).returncode == 0


def test_the_installed_program_tells_errors_in_one_line(changed: Changed) -> None:
    program = Path(sys.executable).with_name("prunemap")
    config = changed("problem.network.name", "resnet80")
    done = subprocess.run([program, "search", config], capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 2
    assert done.stdout == ""
    assert one_line(done.stderr) == done.stderr.strip()


def test_a_reader_that_leaves_early_is_no_error() -> None:
    line = f"{sys.executable} -m prunemap.search_runs.cli list schemes --format csv | head -c 10"
    done = subprocess.run(line, shell=True, capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_bench_latency_compares_predictions_with_measurements(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    options = ["--network", "resnet8", "--options", "width=4,in_channels=1", "--shape", "1x8x8", "--mappings", "4"]
    models = ["table", "piecewise-linear"]
    few = ["--schemes", "simd:4", "--rates", "2", "--model", ",".join(models), "--format", "json"]
    assert cli.main(["bench", "latency", *options, *few]) == 0
    rows = json.loads(capsys.readouterr().out)
    halves = [row for row in rows if "half" in row]
    told = ["independent", "log-uniform", "all"]
    assert [(row["model"], row["half"]) for row in halves] == list(product(models, told))
    assert all(row["mean"] >= 0 and row["constant"] >= 0 for row in halves)
    assert all(0 <= row[flag] <= row["mappings"] for row in halves for flag in ("unstable", "disturbed"))
    table, linear = halves[:3], halves[3:]
    assert [row["constant"] for row in table] == [row["constant"] for row in linear]  # the same measurements
    assert [row["mean"] for row in table] != [row["mean"] for row in linear]
    schemes = {(row["model"], row["scheme"]) for row in rows if "scheme" in row}
    assert schemes == set(product(models, ["dense", "simd:4"]))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--mappings", "2"], "at least 4"),
        (["--model", "table,tabel"], "did you mean table?"),
        (["--model", "table", "--profile", "known.parquet"], "leave it out"),
    ],
)
def test_bench_latency_refuses_before_it_measures(
    capsys: pytest.CaptureFixture[str], words: list[str], reason: str
) -> None:
    assert cli.main(["bench", "latency", "--network", "resnet8", "--shape", "3x8x8", *words]) == 2
    assert reason in one_line(capsys.readouterr().err)


def test_bench_grid_measures_every_width(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--network", "resnet8", "--options", "width=4", "--shape", "3x8x8", "--layers", "layer1.0.conv1"]
    assert cli.main(["bench", "grid", *options, "--format", "json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["widths"] == len(row["grid"]) == 4 * 4
    assert {(width["live_in"], width["live_out"]) for width in row["grid"]} == set(product(range(1, 5), repeat=2))
    assert 0.0 <= row["mean"] <= row["largest"]


def test_bench_grid_refuses_unknown_layers_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "grid", "--network", "resnet8", "--layers", "layer1.0.conv9"]) == 2
    assert "layer1.0.conv9" in one_line(capsys.readouterr().err)
