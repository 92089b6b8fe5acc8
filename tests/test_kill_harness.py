"""Studies killed at random instants end as unbroken ones do (the whole harness: see ``kill_harness``)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(600)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the harness forks")
def test_studies_killed_at_random_instants_lose_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.kill_harness", "--kills", "4", "--seed", "5"],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=570,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "two studies at once, two runs at a time: no difference" in done.stdout
    assert "4 kills: 0 with a difference" in done.stdout
