"""The command line: what may be typed, and how errors are told. Commands are imported when they are run."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

from .. import __version__

Value = TypeVar("Value")

_FORMATS = ("table", "json", "csv")
LISTS = ("agents", "schemes", "networks", "datasets", "configs", "runs")
_USER_ERROR, _DEFECT, _INTERRUPTED = 2, 1, 130


class _UsageError(Exception):
    """What was typed is not a command."""


class _Parser(argparse.ArgumentParser):
    """Tells errors in one line, as all of prunemap does."""

    def error(self, message: str) -> NoReturn:
        raise _UsageError(f"{message} (see `{self.prog} --help`)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status.

    Bad input is told in one line on standard error, status 2. What nobody foresaw goes to a log file that is named,
    status 1; with ``--debug`` it is shown.
    """
    try:
        args = _parser().parse_args(argv)
    except _UsageError as error:
        return _tell(error)
    module, _, function = args.run.partition(":")
    # Loaded here, with the command's modules: the help needs none of them.
    errors = importlib.import_module("..pruning.errors", __package__)
    try:
        return int(getattr(importlib.import_module(f".{module}", __package__), function)(args))
    except errors.PrunemapError as error:
        if args.debug:
            traceback.print_exc()
        return _tell(error)
    except KeyboardInterrupt:
        print("prunemap: interrupted", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader of a pipe went away, as `head` does; nothing is left to be flushed to it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _DEFECT
    except Exception as error:
        return _log_defect(error, args.debug)


def _tell(error: Exception) -> int:
    print(f"prunemap: error: {' '.join(str(error).split())}", file=sys.stderr)
    return _USER_ERROR


def _log_defect(error: Exception, debug: bool) -> int:
    if debug:
        traceback.print_exc()
        return _DEFECT
    import platformdirs

    folder = platformdirs.user_log_path("prunemap", ensure_exists=True)
    log = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    log.write_text(f"prunemap {__version__}: {' '.join(sys.argv)}\n{traceback.format_exc()}", encoding="utf-8")
    told = " ".join(f"{type(error).__name__}: {error}".split())
    print(f"prunemap: unexpected error: {told[:300]} (details in {log})", file=sys.stderr)
    return _DEFECT


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="prunemap",
        description="Finds the pruning scheme, block size and rate each layer of a network should get on this machine.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"prunemap {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (_search, _resume, _status, _compare, _replay, _profile, _list, _doctor, _bench):
        add(commands)
    return parser


def _command(commands: argparse._SubParsersAction[_Parser], name: str, run: str, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
    parser.add_argument("--debug", action="store_true", help="show where an error came from")
    parser.set_defaults(run=run)
    return parser


def _search(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = _command(commands, "search", "search:search", "start a search job")
    _config(parser)
    parser.add_argument("--name", help="name of the run")
    parser.add_argument("--agents", type=_names, metavar="A,B", help="agents that search")
    parser.add_argument("--seeds", type=_numbers, metavar="0,1", help="seeds of every agent")
    parser.add_argument("--evaluations", type=int, metavar="N", help="evaluations per agent and seed")
    _where(parser)
    parser.add_argument(
        "--profile", metavar="FILE", help="a profile, for instance of another machine that is the target"
    )
    parser.add_argument("--fresh", action="store_true", help="set an earlier run of this name aside")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and the resolved configuration only")
    _runs(parser)


def _resume(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = _command(commands, "resume", "search:resume", "go on with a search that was stopped or killed")
    _run(parser)
    _where(parser)


def _status(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = _command(commands, "status", "results:status", "show how far a run is")
    _run(parser)
    _format(parser)


def _compare(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = _command(commands, "compare", "compare:compare", "measure the best mapping of every agent, side by side")
    _run(parser)
    _format(parser)


def _replay(commands: argparse._SubParsersAction[_Parser]) -> None:
    text = "repeat a run's best result, retrain it fully and measure it"
    parser = _command(commands, "replay", "replay:replay", text)
    _run(parser)
    parser.add_argument("--agent", help="whose result; the best one's when left out")
    parser.add_argument("--seed", type=int, help="the agent's seed; its best one when left out")
    _format(parser)


def _profile(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = _command(commands, "profile", "profiles:profile", "measure the layers of a network, or show a profile")
    _config(parser, "configuration (file or bundled name), or a profile file to show")
    parser.add_argument("--model", default="table", help="latency model whose points are measured (table)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the profile here")
    parser.add_argument("--show", action="store_true", help="also speed-ups and PPR per scheme and layer shape")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw latency over density and over block size")
    _format(parser)


def _list(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = _command(commands, "list", "listings:listing", "list what there is")
    parser.add_argument("what", choices=LISTS)
    _runs(parser)
    _format(parser)


def _doctor(commands: argparse._SubParsersAction[_Parser]) -> None:
    _format(_command(commands, "doctor", "doctor:doctor", "examine this machine, and how steady latencies are on it"))


def _bench(commands: argparse._SubParsersAction[_Parser]) -> None:
    text = "benchmarks of kernels and problems"
    parser = commands.add_parser("bench", help=text, description=text, allow_abbrev=False)
    benches = parser.add_subparsers(title="benchmarks", metavar="WHAT", required=True)
    network = _command(benches, "network", "bench_network:network", "a network on our kernels and on other engines")
    _network(network)
    network.add_argument(
        "--peers", type=_names, default=(), metavar="A,B", help="other engines, with the dense network"
    )
    _engine(network)
    _format(network)
    kernels = _command(benches, "kernels", "bench_kernels:kernels", "every layer against the roof and its own bound")
    _network(kernels)
    kernels.add_argument("--layers", default="*", metavar="GLOB", help="layers to time, for instance 'layer3.*'")
    _engine(kernels)
    _format(kernels)
    roof = _command(benches, "roof", "bench_kernels:roof", "what a core and its caches can do at most")
    _engine(roof)
    _format(roof)
    _bench_latency(benches)
    _bench_grid(benches)
    signal = _command(benches, "signal", "bench_signal:signal", "does the fast accuracy tell good mappings from bad?")
    _config(signal)
    signal.add_argument("--mappings", type=int, default=60, metavar="N", help="random mappings (60)")
    signal.add_argument("--replicates", type=int, default=4, metavar="N", help="repetitions that tell seed noise (4)")
    _where(signal)
    _format(signal)


def _network(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--network", required=True, help="registered name, or package.module:function")
    parser.add_argument("--options", type=_pairs, default={}, metavar="A=1,B=2", help="options of the network")
    parser.add_argument("--shape", type=_shape, metavar="CxHxW", help="input, where the network has no default")
    parser.add_argument(
        "--scheme", type=_names, default=("simd:8",), metavar="A,B", help="schemes of every convolution but the first"
    )
    parser.add_argument("--rate", type=_rates, default=(4.0,), metavar="4,10", help="their rates")


def _engine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=_count, default=1, help="threads to run on")
    parser.add_argument("--isa", default="auto", help="instruction set of our kernels")


def _bench_latency(benches: argparse._SubParsersAction[_Parser]) -> None:
    parser = _command(benches, "latency", "bench_latency:latency", "predicted against measured, on random mappings")
    parser.add_argument("--network", required=True, help="registered name, or package.module:function")
    parser.add_argument("--options", type=_pairs, default={}, metavar="A=1,B=2", help="options of the network")
    parser.add_argument("--shape", type=_shape, metavar="CxHxW", help="input, where the network has no default")
    parser.add_argument("--mappings", type=_count, default=100, metavar="N", help="random mappings (100)")
    parser.add_argument("--highest-rate", type=float, default=16.0, help="their rates go from 1 to this one (16)")
    parser.add_argument("--schemes", type=_names, metavar="A,B", help="schemes; one of every family when left out")
    parser.add_argument(
        "--rates", type=_rates, default=(1.5, 2.0, 4.0, 8.0, 16.0), help="rates of the profile (1.5,2,4,8,16)"
    )
    parser.add_argument(
        "--model", type=_names, metavar="A,B",
        help="latency models, judged by the same measurements; the first draws the mappings and is plotted (table)",
    )  # fmt: skip
    parser.add_argument("--profile", type=Path, metavar="FILE", help="a profile measured before, instead of a new one")
    parser.add_argument("--seed", type=int, default=0, help="of weights and mappings")
    parser.add_argument("--threads", type=_count, default=1, help="threads of the networks")
    parser.add_argument("--isa", default="auto", help="instruction set of the kernels")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="also draw predicted against measured")
    _format(parser)


def _bench_grid(benches: argparse._SubParsersAction[_Parser]) -> None:
    parser = _command(benches, "grid", "bench_grid:grid", "the model channels against every width of some layers")
    parser.add_argument("--network", required=True, help="registered name, or package.module:function")
    parser.add_argument("--options", type=_pairs, default={}, metavar="A=1,B=2", help="options of the network")
    parser.add_argument("--shape", type=_shape, metavar="CxHxW", help="input, where the network has no default")
    parser.add_argument("--layers", type=_names, required=True, metavar="A,B", help="layers to measure at every width")
    _engine(parser)
    _format(parser)


def _config(parser: argparse.ArgumentParser, text: str = "configuration: a YAML file or a bundled name") -> None:
    parser.add_argument("config", help=text)
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY.PATH=VALUE", help="change one value of the configuration"
    )


def _where(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workers", type=int, metavar="N", help="processes that evaluate, one CPU each")
    parser.add_argument("--ray-address", metavar="HOST:PORT", help="a running Ray cluster, instead of this machine")


def _run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_name", metavar="RUN", help="folder of a run, or its name")
    _runs(parser)


def _runs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="where runs are kept (runs/)")


def _format(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", choices=_FORMATS, default="table", help="how results are printed")


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _count(text: str) -> int:
    return _expected("a number >= 1", text, lambda: _at_least_one((int(text),))[0])


def _numbers(text: str) -> tuple[int, ...]:
    return _expected("0,1,2", text, lambda: tuple(int(part) for part in text.split(",")))


def _rates(text: str) -> tuple[float, ...]:
    return _expected("4,10", text, lambda: tuple(float(part) for part in text.split(",")))


def _shape(text: str) -> tuple[int, ...]:
    def read() -> tuple[int, ...]:
        channels, height, width = text.split("x")
        return _at_least_one((int(channels), int(height), int(width)))

    return _expected("CxHxW, for instance 3x32x32", text, read)


def _at_least_one(numbers: tuple[int, ...]) -> tuple[int, ...]:
    if min(numbers) < 1:
        raise ValueError
    return numbers


def _expected(what: str, text: str, read: Callable[[], Value]) -> Value:
    """What ``read`` returns; its ValueError is told as what should have been typed."""
    try:
        return read()
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected {what}, got {text!r}") from None


def _pairs(text: str) -> dict[str, object]:
    import yaml

    pairs = (part.partition("=") for part in text.split(","))
    return {key: yaml.safe_load(value) for key, _, value in pairs}


if __name__ == "__main__":
    sys.exit(main())
