"""The cost of a study of many runs can be measured: runs are planned, found done, and read."""

from __future__ import annotations

from pathlib import Path

import pytest

from cost_model import whole_study


def test_planned_runs_are_found_done_and_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MTBERT_RUNS", str(tmp_path))
    whole_study(tmp_path, 15)
    out, err = capfd.readouterr()
    assert "study: 15 runs: 15 done, 0 to make" in err
    assert [line.split(" | ")[:2] for line in out.splitlines()] == [
        [f"| {what}", "15"] for what in ("plan, nothing done", "plan and skip, all done", "table", "claims", "runs")
    ]
    assert len(list(tmp_path.glob("*/result.json"))) == 15
