"""On the real kernels and beside other engines: everything runs and agrees; times are not judged."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from prunemap.kernels import compile_network
from prunemap.latency import PEERS, Profile, bench_network, compare_engines, measure, synthesise
from prunemap.pruning import Choice, Mapping, Network, PrunemapError, apply_mapping

EXAMPLE = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
INSTALLED = {"onnxruntime": "onnxruntime", "openvino": "openvino", "torch": "torch"}


def test_a_profile_of_a_real_network(network: Network, tmp_path: Path) -> None:
    profile = Profile.build(network, ["simd:8", "filter"], [4.0])
    profile.save(tmp_path / "profile.parquet")
    back = Profile.load(tmp_path / "profile.parquet")
    back.check_machine()
    mapping = Mapping({"conv1": Choice("simd:8", 4.0), "conv2": Choice("filter", 2.0)})
    prediction = back.predict(network, mapping)
    assert 0 < prediction.low < prediction.ms < prediction.high
    dense = back.predict(network, Mapping())
    assert 0.2 * back.dense_ms < dense.ms < 5 * back.dense_ms  # neighbours may have come in between
    owners = {row.layer for row in back.survey.rows if row.ms > 0}
    assert owners == {layer.name for layer in network.layers}


def test_a_compiled_network_is_measured_with_its_own_settings(network: Network) -> None:
    compiled = compile_network(synthesise(network), EXAMPLE)
    found = measure(compiled, evaluations=1)
    assert found.machine.isa == compiled.isa
    assert 0 < found.median_ms <= found.p90_ms
    assert len(found.samples_ms) >= 64


@pytest.mark.parametrize("name", PEERS.names())
def test_peers_compute_what_torch_does(network: Network, name: str) -> None:
    pytest.importorskip(INSTALLED[name])
    model = synthesise(network)
    peer = PEERS[name](model, EXAMPLE, 1)
    peer.run()
    with torch.no_grad():
        np.testing.assert_allclose(peer.output(), model(EXAMPLE).numpy(), rtol=1e-4, atol=1e-5)
    assert peer.time(3).shape == (3,)
    assert (peer.time(3) > 0).all()


def test_openvino_does_not_call_home(network: Network) -> None:
    pytest.importorskip("openvino_telemetry")
    program = (
        "import sys, torch; from torch import nn; from prunemap.latency import PEERS; "
        "PEERS['openvino'](nn.Sequential(nn.Conv2d(3, 4, 1)).eval(), torch.zeros(1, 3, 8, 8), 1).run(); "
        "print([name for name, module in sys.modules.items() if name.startswith('openvino_telemetry') and module])"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.PIPE, text=True)
    assert done.stdout.split() == ["[]"]


def test_engines_are_compared_in_one_table(network: Network) -> None:
    model = synthesise(network)
    pruned = apply_mapping(model, Mapping({"conv1": Choice("simd:8", 4.0)}), network)
    rows = bench_network(model, {"one": pruned, "same": model}, EXAMPLE, ["torch"])
    assert [(row.engine, row.network) for row in rows] == [
        ("prunemap", "dense"),
        ("prunemap", "one"),
        ("prunemap", "same"),
        ("torch", "dense"),
    ]
    assert (rows[0].ratio, rows[3].peer_ratio) == (1.0, 1.0)
    assert rows[1].ratio * rows[0].peer_ratio == pytest.approx(rows[1].peer_ratio)
    assert all(row.error < 1e-5 for row in rows)


def test_a_wrong_output_is_not_timed(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    def other_network(model: nn.Module, *args: object) -> object:
        return compile_network(synthesise(network, seed=5), EXAMPLE)

    monkeypatch.setattr(compare_engines, "compile_network", other_network)
    model = synthesise(network)
    with pytest.raises(PrunemapError, match="prunemap, dense network: its output differs"):
        bench_network(model, {}, EXAMPLE)


def test_an_output_that_proves_nothing_is_refused(network: Network) -> None:
    model = synthesise(network)
    with torch.no_grad():
        model.get_parameter("head.weight").zero_()
    with pytest.raises(PrunemapError, match="does not depend on its input"):
        bench_network(model, {}, EXAMPLE)


def test_a_missing_peer_says_how_to_get_it(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(PrunemapError, match=r"pip install 'prunemap\[peers\]'"):
        PEERS["onnxruntime"](synthesise(network), EXAMPLE, 1)


def test_an_unknown_peer_is_refused(network: Network) -> None:
    model = synthesise(network)
    with pytest.raises(PrunemapError, match="did you mean onnxruntime"):
        bench_network(model, {}, EXAMPLE, ["onnxruntim"])
