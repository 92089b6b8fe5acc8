from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys
from mtbert.process import prepare
prepare()
import mtbert.train
heavy = {"transformers", "scipy.signal", "scipy.stats", "matplotlib.axes", "pandas"} & set(sys.modules)
assert not heavy, heavy
import torch
from mtbert.tasks import TASKS
assert float(TASKS["sts"].metric(torch.tensor([1., 2.]), torch.tensor([2., 4.]))) == 1
assert float(TASKS["sst"].metric(torch.tensor([1., 2.]), torch.tensor([1., 4.]))) == 0.5
prepare()
import transformers
"""


def test_training_imports_nothing_heavy_that_it_does_not_use() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
