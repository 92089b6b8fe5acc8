"""The wheel carries everything that a run needs: no file of the repository."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from mtbert.paths import PACKAGE

ROOT = PACKAGE.parents[1]

SCRIPT = """
import mtbert, mtbert.paths
from mtbert.compose import compose
from mtbert.results.paper import paper_rows
from mtbert.data.download import add_arguments
import hydra_plugins.mtbert_study
folder = mtbert.paths.conf_dir()
assert folder.parent.name == "mtbert", folder
for path in sorted((folder / "experiment").glob("*.yaml")):
    compose([f"experiment={path.stem}"])
print(mtbert.paths.PACKAGE, len(paper_rows()))
"""


@pytest.mark.skipif(not (ROOT / "pyproject.toml").is_file(), reason="needs the repository")
def test_a_wheel_works_without_the_repository(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
        names = archive.namelist()
    for part in ("mtbert/conf/train.yaml", "mtbert/data/sources.csv", "mtbert/results/paper/table.csv"):
        assert part in names
    assert not any(name.startswith("tests/") for name in names)
    script = f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n{SCRIPT}"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{tmp_path / 'site' / 'mtbert'} 15"
