"""What tables say of measurements that are not to be trusted."""

from __future__ import annotations

from prunemap.search_runs.compare import flagged


def test_flags_are_told_with_the_rows_they_belong_to() -> None:
    rows = [
        {"method": "dense", "unstable": False, "disturbed": True},
        {"method": "random-0", "unstable": True, "disturbed": True},
        {"method": "not measured"},
    ]
    told = flagged(rows, "method")
    assert "Unsteady (MAD above 1 %): random-0." in told
    assert "Disturbed (something else computed): dense, random-0." in told
    assert flagged(rows[2:], "method") == ""
