"""Effects of a factorial, from figures that are known."""

from __future__ import annotations

from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest

from mtbert.cli import main
from mtbert.errors import InputError
from mtbert.results.evidence import BEST, HALVES, Evidence
from mtbert.results.interactions import factorial, interactions, main_effects
from synthetic_runs import measured, record

METRIC = "dev/average"
MEASURES = ("data", "epochs", "robin")


def known(gains: dict[str, float], both: float, seeds: int = 3) -> Evidence:
    """Figures that add up, but for what ``data`` and ``epochs`` lose or win together."""
    figures = {}
    for size in range(len(MEASURES) + 1):
        for on in combinations(MEASURES, size):
            name = f"factorial/{'_'.join(on) or 'none'}"
            value = 0.5 + sum(gains[measure] for measure in on) + both * ({"data", "epochs"} <= set(on))
            random = np.random.default_rng(len(figures))
            noise = random.normal(0, 0.001, (seeds, 101))
            figures[name, ()] = {(HALVES, METRIC): value + noise}
    rows = {key: [record(key[0], seed) for seed in range(seeds)] for key in figures}
    return Evidence(rows, figures, {})


def test_gains_and_interactions_are_found_again() -> None:
    evidence = known({"data": 0.04, "epochs": 0.03, "robin": 0.02}, both=-0.035)
    measures, cells = factorial(evidence.rows)
    assert measures == MEASURES
    effects = {e.measure: e.gain.value for e in main_effects(measures, cells, evidence, METRIC, HALVES)}
    assert effects == pytest.approx({"data": 0.04 - 0.0175, "epochs": 0.03 - 0.0175, "robin": 0.02}, abs=0.002)
    pairs = {(p.first, p.second): p for p in interactions(measures, cells, evidence, METRIC, HALVES)}
    assert pairs["data", "epochs"].added.value == pytest.approx(-0.035, abs=0.002)
    assert pairs["data", "epochs"].first_with_second.value == pytest.approx(0.005, abs=0.002)
    assert pairs["data", "epochs"].verdict == "redundant"
    assert pairs["data", "robin"].added.value == pytest.approx(0, abs=0.002)
    assert pairs["data", "robin"].verdict == "stack"


def test_measures_that_only_harm_are_not_redundant() -> None:
    evidence = known({"data": -0.04, "epochs": -0.03, "robin": 0.02}, both=-0.035)
    pairs = {(p.first, p.second): p for p in interactions(*factorial(evidence.rows), evidence, METRIC, HALVES)}
    assert pairs["data", "epochs"].added.high < 0
    assert pairs["data", "epochs"].verdict == "undecided"


def test_one_seed_decides_no_interaction() -> None:
    evidence = known({"data": 0.04, "epochs": 0.03, "robin": 0.02}, both=0.0, seeds=1)
    pairs = interactions(*factorial(evidence.rows), evidence, METRIC, HALVES)
    assert {pair.verdict for pair in pairs} == {"undecided"}


def test_the_command_reads_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    skills = {"none": 0.2, "data": 0.5, "robin": 0.4, "data_robin": 0.9}
    for (name, skill), seed in product(skills.items(), (0, 1)):
        measured(tmp_path, f"factorial/{name}", seed, skill)
    measured(tmp_path)
    assert main(["interactions", "--runs", str(tmp_path), "--epoch", BEST, "--on", "sst"]) == 0
    printed = capsys.readouterr().out
    assert "Main effects on sst" in printed and "data, robin" in printed


def test_what_is_missing_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"no finished runs of factorial/ .*; make them with: mtbert train -m"):
        factorial({("00_baseline", ()): []})
    some = {(f"factorial/{name}", ()): [] for name in ("none", "data", "robin")}
    with pytest.raises(InputError, match=r"1 of 4 experiments of factorial/ not run, e\.g\. of data_robin"):
        factorial(some)
    measured(tmp_path)
    assert main(["interactions", "--runs", str(tmp_path)]) == 2
    assert "mtbert: no finished runs of factorial/" in capsys.readouterr().err
