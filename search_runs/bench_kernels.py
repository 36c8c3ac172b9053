"""The commands ``bench kernels`` and ``bench roof``: layers and loops against what the machine can do at most."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

from ..latency import KernelRow, bench_kernels, machine, measure_roof, shares, time_shares
from ..latency.bench_kernels import WAYS
from ..pruning import Choice, Network
from ..pruning.errors import PrunemapError
from ..pruning.mapping import DENSE
from .bench_network import Variant, load, prune
from .progress import progress_bar
from .tables import Column, Row, number, percent, remark, show, text

_SHORTER = {"pixels ": "", "channels ": "", "runs>tiles": "r>t", "tiles>runs": "t>r", "reordered": "re"}


def _short(value: object, row: Row) -> str:
    words = str(value)
    for long, short in _SHORTER.items():
        words = words.replace(long, short)
    return words


def _whole(key: str, title: str) -> Column:
    """A share in percent, without the sign: the table has many and a terminal has 120 columns."""
    return Column(key, title, lambda value, row: f"{100 * value:.0f}", right=True)


_COLUMNS = (
    text("layer"),
    text("what"),
    _whole("kept", "kept"),
    Column("candidate", "kernel", _short),
    Column("in_place_ms", "us", lambda value, row: f"{1e3 * value:.4g}", right=True),
    number("in_place_gflops", "GF/s", ".1f"),
    _whole("hot_of_roof", "hot"),
    _whole("cold_of_roof", "cold"),
    _whole("in_place_of_roof", "place"),
    _whole("hot_of_bound", "bound"),
    number("in_place_of_dense", "dense", ".2f"),
)


def kernels(args: Namespace) -> int:
    """Prune every convolution but the first that a scheme fits, and time the layers one by one and in place."""
    subject = load(args)
    wanted = _matching(subject.structure, args.layers)
    told: list[Row] = []
    for variant in prune(subject, args):
        with progress_bar() as report:
            found = bench_kernels(subject.model, variant.model, subject.example, wanted, args.threads, args.isa, report)
        rows = _rows(found, variant)
        told += rows
        if args.format == "table":
            show(rows, _COLUMNS, title=_title(subject.title, variant.choice, args, found))
    if args.format == "table":
        remark(_REMARK)
    else:
        show(told, _COLUMNS, args.format)
    return 0


def _rows(found: Sequence[KernelRow], variant: Variant) -> list[Row]:
    """All layers, then the means over those that were pruned (with ``dense``: that every scheme would prune)."""
    counted = [row for row in found if row.layers[0] in variant.layers]
    rows = [_row(row, variant.choice if row in counted else DENSE) for row in found]
    if counted:
        rows += [_mean("geometric mean", counted, shares), _mean("all, by time", counted, time_shares)]
    return [{"variant": str(variant.choice), **row} for row in rows]


_REMARK = """kept: % of the layer's weights. us, GF/s: within whole runs, counting multiplications by kept weights.
hot, cold, place: % of the roof with all hot, with weights cold and input hot, and within whole runs.
bound: % of the layer's own bound (multiply-adds at the roof, or bytes at their cache level's bandwidth), all hot.
dense: time over that of our own dense layer, both within whole runs.
The last two lines are of the pruned layers: plain geometric mean, every layer once; all of them together, by time."""


def _matching(structure: Network, pattern: str) -> set[str]:
    names = [layer.name for layer in structure.layers]
    found = {name for name in names if fnmatchcase(name, pattern)}
    if not found:
        raise PrunemapError(f"--layers {pattern}: no layer matches; there are {', '.join(names)}")
    return found


def _row(row: KernelRow, choice: Choice) -> Row:
    name = row.layers[0] + (f" x{len(row.layers)}" if len(row.layers) > 1 else "")
    filters, inputs, height, width = row.shape
    stride = f"/{row.stride[0]}" if row.stride != (1, 1) else ""
    told = f"{inputs}>{filters} {height}x{width}{stride} @{row.output[0]}"
    return {
        "layer": name,
        "what": told,
        "choice": str(choice),
        **row.to_dict(),
        **{f"{way}_gflops": row.gflops(way) for way in WAYS},
    }


def _mean(name: str, rows: Sequence[KernelRow], mean: Callable[[Sequence[KernelRow], str], dict[str, float]]) -> Row:
    values = {f"{way}_{what}": value for way in WAYS for what, value in mean(rows, way).items()}
    gflops = {f"{way}_gflops": values[f"{way}_of_roof"] * rows[0].roof_gflops for way in WAYS}
    return {"layer": name, "layers": [layer for row in rows for layer in row.layers], **values, **gflops}


def _title(subject: str, choice: Choice, args: Namespace, rows: Sequence[KernelRow]) -> str:
    roof = f"roof {rows[0].roof_gflops:.1f} GFLOP/s, {args.threads} thread(s)"
    return f"{subject}, {choice}, {roof}\n{machine(args.isa).fingerprint()}"


_LOOPS = {
    "registers": "multiply-add, operands in registers",
    "aligned": "multiply-add, one vector from L1, aligned",
    "misaligned": "multiply-add, one vector from L1, off by 4 bytes",
    "broadcast": "multiply-add, one float from L1 to all lanes",
}
_ROOF_COLUMNS = (
    text("what"),
    number("lanes", "lanes"),
    number("threads", "threads"),
    number("value", "measured", ".1f"),
    text("unit"),
    percent("of_roof", "of roof", 0),
)


def roof(args: Namespace) -> int:
    """Measure the loops that no kernel can beat."""
    found = measure_roof(args.isa, args.threads)
    rows: list[Row] = [
        {"what": _LOOPS[f.loop], "lanes": f.lanes, "threads": f.threads, "value": f.gflops, "unit": "GFLOP/s",
         "of_roof": f.gflops / found.best(1), "loop": f.loop, "bytes": None}
        for f in found.fma
    ]  # fmt: skip
    rows += [
        {"what": f"read {b.level}, {b.read >> 10} KiB", "lanes": None, "threads": b.threads, "value": b.gbps,
         "unit": "GB/s", "of_roof": None, "loop": "read", "bytes": b.read}
        for b in found.bandwidths
    ]  # fmt: skip
    show(rows, _ROOF_COLUMNS, args.format, machine(args.isa).fingerprint())
    return 0
