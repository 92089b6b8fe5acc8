"""Claims as data: read strictly, held against runs, undecided where the runs cannot tell."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mtbert.cli import main
from mtbert.errors import InputError
from mtbert.paths import claims_file
from mtbert.results.claims import FAILS, HOLDS, NOT_RUN, UNDECIDED, Claim, Judged, judge, read_claims
from mtbert.results.claims import known_experiments as known
from mtbert.results.evidence import Evidence
from mtbert.results.paper import paper_rows
from synthetic_runs import measured

MakeEvidence = Callable[..., Evidence]


@pytest.fixture
def evidence(tmp_path: Path) -> MakeEvidence:
    def made(seeds: int = 3, **skills: float) -> Evidence:
        names = {"baseline": "00_baseline", "epochs": "01_20_epochs", "data": "08_sst_polar_sts_sick", "both": "final"}
        runs = [measured(tmp_path, names[name], s, skill) for name, skill in skills.items() for s in range(seeds)]
        return Evidence.of(runs, replicates=200)

    return made


def shipped() -> list[Claim]:
    return read_claims(claims_file(), known([]))


def judged(text: str, evidence: Evidence, tmp_path: Path) -> Judged:
    (tmp_path / "claims.yaml").write_text(f"- says: it\n  {text}\n")
    return judge(read_claims(tmp_path / "claims.yaml", known([])), evidence)[0]


def test_each_row_has_its_claims_with_the_papers_direction() -> None:
    against_baseline = {
        (test.figure, next(iter(test.weights)))
        for claim in shipped()
        if claim.contrast and claim.contrast.against == ["00_baseline"]
        for test in claim.tests
    }
    for row in paper_rows()[1:]:
        assert {experiment for _, experiment in against_baseline} >= {row.experiment}
    for claim in shipped():
        for test in claim.tests:
            if claim.source == "Figure 6":  # what the table itself says, it bears out
                assert test.paper is not None and test.sign * test.paper > 0, (claim.says, test.figure)


def test_the_papers_number_is_that_of_its_table_or_the_stated_one() -> None:
    by_text = {claim.says: claim for claim in shipped()}
    assert by_text["[1] 20 epochs instead of 10"].tests[0].paper == pytest.approx(0.02)
    total = next(claim for claim in shipped() if claim.sum)
    assert total.tests[0].paper == 0.032
    assert total.tests[0].weights["00_baseline"] == -3
    assert sum(total.tests[0].weights.values()) == 0
    alone = next(claim for claim in shipped() if "SST alone" in claim.says)
    assert alone.tests[0].paper is None


def test_verdicts_follow_the_interval(evidence: MakeEvidence, tmp_path: Path) -> None:
    runs = evidence(baseline=0.3, epochs=0.7, data=0.3)
    better = "contrast: {of: 01_20_epochs, against: 00_baseline, figures: {average: better, sst: better}}"
    assert judged(better, runs, tmp_path).verdict == HOLDS
    assert judged(better.replace("average: better", "average: worse"), runs, tmp_path).verdict == FAILS
    assert judged(better.replace("figures", "by: 0.9, figures"), runs, tmp_path).verdict == FAILS
    same = judged(better.replace("01_20_epochs", "08_sst_polar_sts_sick"), runs, tmp_path)
    assert same.verdict == UNDECIDED
    assert judged(better.replace("01_20_epochs", "02_batch_size_8"), runs, tmp_path).verdict == NOT_RUN


def test_a_sum_of_gains_is_held_against_their_combination(evidence: MakeEvidence, tmp_path: Path) -> None:
    total = "sum: {of: [01_20_epochs, 08_sst_polar_sts_sick], exceeds: final, against: 00_baseline, figures: [average]}"
    assert judged(total, evidence(baseline=0.2, epochs=0.6, data=0.6, both=0.6), tmp_path).verdict == HOLDS
    assert judged(total, evidence(baseline=0.2, epochs=0.3, data=0.3, both=0.9), tmp_path).verdict == FAILS


def test_one_seed_decides_nothing(evidence: MakeEvidence, tmp_path: Path) -> None:
    runs = evidence(seeds=1, baseline=0.1, epochs=0.9)
    found = judged("contrast: {of: 01_20_epochs, against: 00_baseline, figures: {average: better}}", runs, tmp_path)
    assert found.verdict == UNDECIDED
    assert found.findings[0].ours is not None and found.findings[0].ours.low > 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- says: a\n  contrats: {}\n", "claim 1: no key 'contrats'; did you mean 'contrast'"),
        ("- contrast: {}\n", "claim 1: .*is missing"),
        ("- says: a\n", "claim 1: expected one of contrast and sum"),
        ("- says: a\n  contrast: [1]\n", r"claim 1: is \[1\]; expected keys and values"),
        ("says: a\n", "expected a list of claims"),
        ("- says: [\n", "not YAML"),
        (
            "- says: a\n  sum: {of: [final], exceeds: [best, 01_20_epochs], against: 00_baseline, figures: [sst]}\n",
            "claim 1: sum: expected one experiment under exceeds, and one under against",
        ),
        (
            "- says: a\n  sum: {of: [final, best], exceeds: final, against: 00_baseline, figures: [sst]}\n",
            "claim 1: names final twice; expected different experiments",
        ),
        (
            "- says: a\n  contrast: {of: [final, best], against: best, figures: {sst: better}}\n",
            "claim 1: names best twice; expected different experiments",
        ),
    ],
)
def test_a_mistake_is_one_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "claims.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_claims(tmp_path / "claims.yaml", known([]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("of: final", "of: finale"), "no experiment 'finale'; did you mean 'final'"),
        (("against", "agianst"), "no key 'agianst'; did you mean 'against'"),
        (("sst: better", "sts: beter"), "no direction 'beter'; did you mean 'better'"),
        (("sst: better", "sstt: better"), "no figure 'sstt'; did you mean 'sst'"),
        (("figures", "by: much, figures"), "contrast.by is 'much'; expected a number"),
    ],
)
def test_a_typo_has_its_nearest_name(change: tuple[str, str], message: str, tmp_path: Path) -> None:
    text = "- says: a\n  contrast: {of: final, against: 00_baseline, figures: {sst: better}}\n"
    (tmp_path / "claims.yaml").write_text(text.replace(*change))
    with pytest.raises(InputError, match=message):
        read_claims(tmp_path / "claims.yaml", known([]))


def test_the_command_prints_verdicts_and_what_is_not_run(
    evidence: MakeEvidence, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evidence(seeds=4, baseline=0.3, epochs=0.8)
    assert main(["claims", "--runs", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "Claims: 1 holds" in printed and "not run yet: mtbert train -m experiment=02_batch_size_8," in printed
    assert main(["claims", "--runs", str(tmp_path), "--format", "json", "--output", str(tmp_path / "c.json")]) == 0
    rows = json.loads((tmp_path / "c.json").read_text())[0]["rows"]
    assert rows[0]["verdict"] == HOLDS and rows[0]["seeds"] == 4 and rows[0]["ours"] > 0.1
    assert main(["claims", "--runs", str(tmp_path / "c.json")]) == 2
