"""The build refuses an ISA unit that leaks symbols; here: that its check would notice."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = [shutil.which(name) for name in ("g++", "nm", "cmake")]


def check(source: str, folder: Path) -> subprocess.CompletedProcess[str]:
    compiler, nm, cmake = TOOLS
    (folder / "unit.cpp").write_text(source, encoding="utf-8")
    built = folder / "unit.o"
    subprocess.run([str(compiler), "-std=c++17", "-O1", "-c", str(folder / "unit.cpp"), "-o", str(built)], check=True)
    script = ROOT / "kernels" / "check_symbols.cmake"
    command = [str(cmake), f"-DNM={nm}", f"-DOBJECTS={built}", "-P", str(script)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


@pytest.mark.skipif(not all(TOOLS), reason="needs g++, nm and cmake")
def test_a_leaked_symbol_stops_the_build(tmp_path: Path) -> None:
    table = "namespace { int hidden() { return 1; } }\nextern const int kernels_x;\nconst int kernels_x = hidden();\n"
    clean = check(table, tmp_path)
    assert clean.returncode == 0, clean.stderr
    leaking = check(f"#include <vector>\n{table}void grow(std::vector<int>& v) {{ v.push_back(1); }}\n", tmp_path)
    assert leaking.returncode != 0
    assert "exports more than its kernel table" in " ".join(leaking.stderr.split()), "cmake wraps its messages"
