from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix, hstack
from scipy.stats import pearsonr
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression, Ridge

from mtbert.compose import compose
from mtbert.config import DatasetConfig
from mtbert.data.rows import Rows, read_rows
from mtbert.data.sample import CONTENT, FILES, digest, sample_folder, vocabulary, write
from mtbert.model.tiny import tiny_folder
from mtbert.paths import sha256

FOLDER_OF_ANOTHER_PROCESS = "from mtbert.data.sample import sample_folder, digest; print(digest(sample_folder()))"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    write(folder)
    return folder


@pytest.fixture(scope="module")
def datasets() -> dict[str, DatasetConfig]:
    """The five datasets as they are shipped."""
    return compose(["experiment=final"]).datasets


def rows_of(folder: Path, datasets: dict[str, DatasetConfig], dataset: str, split: str) -> Rows:
    (name,) = datasets[dataset].files[split]
    return read_rows(folder / name, datasets[dataset], labelled=split != "test")


def records(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file, delimiter="\t", strict=True))


def another_process(cache: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", FOLDER_OF_ANOTHER_PROCESS],
        env={**os.environ, "MTBERT_CACHE": str(cache), **environment},
        stdout=subprocess.PIPE,
        text=True,
    )


# --- the files and the cache ---------------------------------------------------------------------------------------


def test_content_is_what_is_written(folder: Path) -> None:
    assert digest(folder) == CONTENT, "the corpus has changed: set CONTENT to what digest() says now"
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)


@pytest.mark.parametrize("environment", [{"PYTHONHASHSEED": "1", "LC_ALL": "C"}, {"PYTHONUTF8": "0", "LANG": "C"}])
def test_content_does_not_hang_on_hash_seed_or_locale(tmp_path: Path, environment: dict[str, str]) -> None:
    process = another_process(tmp_path, **environment)
    assert process.communicate(timeout=60)[0].strip() == CONTENT


def test_another_seed_gives_other_rows_in_the_same_form(folder: Path, tmp_path: Path) -> None:
    write(tmp_path, seed=1)
    for name in FILES:
        ours, others = records(folder / name), records(tmp_path / name)
        assert ours[0] == others[0] and len(ours) == len(others)
        assert ours[1:] != others[1:]


def test_folder_is_written_once(cache: Path) -> None:
    folder = sample_folder()
    assert folder.parent == cache and digest(folder) == CONTENT
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert sample_folder() == folder
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_missing_cut_off_and_altered_files_are_written_again(cache: Path) -> None:
    folder = sample_folder()
    (folder / FILES[0]).unlink()
    os.truncate(folder / FILES[1], 100)
    altered = (folder / FILES[2]).read_bytes()
    (folder / FILES[2]).write_bytes(altered[:-2] + b"9\n")
    assert digest(sample_folder()) == CONTENT
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)


def test_several_processes_at_once_end_with_a_whole_folder(tmp_path: Path) -> None:
    processes = [another_process(tmp_path) for _ in range(3)]
    assert [process.communicate(timeout=60)[0].strip() for process in processes] == [CONTENT] * 3
    assert sorted(path.name for path in tmp_path.glob("*/*")) == sorted(FILES)


# --- the form of the rows ------------------------------------------------------------------------------------------


def test_every_row_is_read_with_the_shipped_datasets(folder: Path, datasets: dict[str, DatasetConfig]) -> None:
    assert sorted(datasets) == ["cfimdb", "quora", "sick", "sst", "sts"]
    for name, dataset in datasets.items():
        for split, files in dataset.files.items():
            for file in files:
                rows = read_rows(folder / file, dataset, labelled=split != "test")
                if split == "test":
                    assert rows.labels is None
                else:
                    assert rows.labels is not None and 0 <= rows.labels.min() < rows.labels.max()
                    assert rows.labels.max() <= {"sst": 4, "para": 1, "sts": 5}[dataset.task]
                unusable = {"empty sentence2": 1, "empty is_duplicate": 1} if (name, split) == ("quora", "dev") else {}
                assert rows.dropped == unusable
                assert rows.available == len(rows.ids) + len(unusable)
                assert len(set(rows.ids)) == len(rows.ids)


def test_dev_sets_are_large_enough_for_a_table(folder: Path, datasets: dict[str, DatasetConfig]) -> None:
    assert {name: len(rows_of(folder, datasets, name, "dev").ids) for name in ("sst", "quora", "sts")} == {
        "sst": 300,
        "quora": 300,
        "sts": 300,
    }


FORMS = {"integer": r"\d+", "point zero": r"\d+\.0", "number": r"\d+(\.\d+)?", "id": "[0-9a-f]{25}", "text": ".+"}


def forms(column: list[str]) -> str:
    """The narrowest form that all filled fields of a column have."""
    return next(name for name, form in FORMS.items() if all(re.fullmatch(form, value) for value in column if value))


@pytest.mark.parametrize("name", [name for name in FILES if name != "quora-test-student.csv"])
def test_files_have_the_form_of_the_real_ones(folder: Path, shared: Path, name: str) -> None:
    ours, real = (folder / name).read_bytes(), (shared / "data" / name).read_bytes()
    assert ours.splitlines(keepends=True)[0] == real.splitlines(keepends=True)[0]
    assert ours.count(b"\r\n") == (ours.count(b"\n") if real.endswith(b"\r\n") else 0)
    columns, real_columns = (list(zip(*records(path / name)[1:], strict=True)) for path in (folder, shared / "data"))
    for column, real_column in zip(columns, real_columns, strict=True):
        found, expected = forms(list(column)), forms(list(real_column))
        if not name.startswith("quora-train"):  # the real one has some other ids
            assert found == expected
        assert column[0].startswith(" ") == real_column[0].startswith(" ")  # SST and CFIMDB


def test_headers_index_columns_and_line_ends(folder: Path) -> None:
    def start(name: str) -> bytes:
        return b"\n".join((folder / name).read_bytes().split(b"\n")[:2])

    assert re.match(rb"\tid\tsentence\tsentiment\n0\t[0-9a-f]{25}\t [A-Z].*\t[0-4]$", start("ids-sst-train.csv"))
    assert re.match(rb"0\t\tid\tsentence\n1\t0\.0\t[0-9a-f]{25}\t [A-Z]", start("ids-sst-test-student.csv"))
    assert re.match(rb"0\t\tid\tsentence\n1\t0\.0\t[0-9a-f]{25}\t\"? ", start("ids-cfimdb-test-student.csv"))
    assert re.match(
        rb"\tid\tsentence1\tsentence2\tis_duplicate\n\d+\t[0-9a-f]{25}\t.+\t[01]\.0$", start("quora-dev.csv")
    )
    assert re.match(rb"\tid\tsentence1\tsentence2\n\d+\t[0-9a-f]{25}\t", start("quora-test-student.csv"))
    assert re.match(
        rb"pair_ID\tsentence_A\tsentence_B\tentailment_label\trelatedness_score\t.*\tSemEval_set\r\n1\t",
        start("sick2014.csv"),
    )


def test_quotes_and_letters_beyond_ascii_are_in_the_files(folder: Path) -> None:
    assert b'"""What' in (folder / "quora-train.csv").read_bytes()
    assert "São" in (folder / "quora-train.csv").read_text(encoding="utf-8")
    assert '"" at last ""' in (folder / "ids-cfimdb-train.csv").read_text(encoding="utf-8")
    (folder / "sick2014.csv").read_bytes().decode("ascii")


def test_the_tiny_encoder_is_the_one_that_figures_were_made_with(cache: Path) -> None:
    assert tiny_folder().name == "tiny-b407cd1183a2"  # of shape and vocabulary
    assert sha256(tiny_folder() / "model.safetensors").startswith("504cf53928"), "as experiments/README.md says"


def test_vocabulary_covers_every_word(tmp_path: Path, folder: Path) -> None:
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer

    write(tmp_path, seed=1)
    known, normalizer, splitter = set(vocabulary()), BertNormalizer(lowercase=True), BertPreTokenizer()
    text_columns = {"sentence", "sentence1", "sentence2", "sentence_A", "sentence_B"}
    used: set[str] = set()
    for path in (tmp_path, folder):
        for name in FILES:
            header, *rows = records(path / name)
            texts = [field for row in rows for column, field in zip(header, row, strict=True) if column in text_columns]
            for text in texts:
                used |= {word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))}
    assert used <= known
    assert len(known - used) < len(known) / 5  # hardly a word that is never said


# --- what the rows are worth ---------------------------------------------------------------------------------------


def pairs_of(rows: Rows) -> list[frozenset[str]]:
    """Each row's texts without punctuation, in no order."""
    return [frozenset(" ".join(re.findall(r"\w+", text)) for text in row) for row in zip(*rows.sentences, strict=True)]


def test_no_row_is_in_two_splits(folder: Path, datasets: dict[str, DatasetConfig]) -> None:
    for name in ("sst", "quora", "sts"):
        rows = [row for split in ("train", "dev", "test") for row in pairs_of(rows_of(folder, datasets, name, split))]
        assert [row for row, count in Counter(rows).items() if count > 1] == []
        assert {len(row) for row in rows} == {len(datasets[name].sentences)}  # no question paired with itself


def test_added_rows_hold_no_row_of_dev_or_test(folder: Path, datasets: dict[str, DatasetConfig]) -> None:
    held_out = {
        name: [row for split in ("dev", "test") for row in pairs_of(rows_of(folder, datasets, name, split))]
        for name in ("sst", "sts")
    }
    assert set(pairs_of(rows_of(folder, datasets, "sick", "train"))).isdisjoint(held_out["sts"])
    for file in datasets["cfimdb"].files["train"]:
        reviews = read_rows(folder / file, datasets["cfimdb"], labelled=True).sentences[0]
        sentences = [text for split in ("dev", "test") for text in rows_of(folder, datasets, "sst", split).sentences[0]]
        assert [text for text in sentences for review in reviews if text in review] == []


@pytest.mark.parametrize("split", ["train", "dev"])
def test_labels_are_spread_as_in_the_real_sets(folder: Path, datasets: dict[str, DatasetConfig], split: str) -> None:
    def shares(name: str) -> list[float]:
        labels = rows_of(folder, datasets, name, split).labels
        assert labels is not None
        return list(np.bincount(labels.astype(int)) / len(labels))

    assert shares("quora")[1] == pytest.approx(0.37, abs=0.05)
    assert shares("sst") == pytest.approx([0.13, 0.26, 0.20, 0.26, 0.15], abs=0.07)
    assert len(shares("sts")) == 6 and 0.05 < min(shares("sts")) < max(shares("sts")) < 0.3


def test_words_alone_tell_something_of_sentiment_but_not_all(folder: Path, datasets: dict[str, DatasetConfig]) -> None:
    train, dev = (rows_of(folder, datasets, "sst", split) for split in ("train", "dev"))
    assert train.labels is not None and dev.labels is not None
    words = CountVectorizer(token_pattern=r"\S+").fit(train.sentences[0])
    model = LogisticRegression(max_iter=500).fit(words.transform(train.sentences[0]), train.labels)
    majority = Counter(dev.labels.tolist()).most_common(1)[0][1] / len(dev.labels)
    assert majority + 0.1 < model.score(words.transform(dev.sentences[0]), dev.labels) < 0.6


def overlap(train: Rows, rows: Rows) -> csr_matrix:
    """Features of pairs: how many words they share, which ones they share, and which ones they do not."""
    words = CountVectorizer(token_pattern=r"\w+", binary=True).fit([*train.sentences[0], *train.sentences[1]])
    first, second = (words.transform(side).astype(float) for side in rows.sentences)
    shared, different = first.multiply(second).tocsr(), abs(first - second).tocsr()
    counts = np.hstack([shared.sum(1), different.sum(1)])
    return hstack([csr_matrix(counts[:, :1] / counts.sum(1)), csr_matrix(counts / 10), shared, different]).tocsr()


def test_shared_words_tell_something_of_paraphrases_but_not_all(
    folder: Path, datasets: dict[str, DatasetConfig]
) -> None:
    train, dev = (rows_of(folder, datasets, "quora", split) for split in ("train", "dev"))
    assert train.labels is not None and dev.labels is not None
    model = LogisticRegression(C=0.1, max_iter=500).fit(overlap(train, train), train.labels)
    majority = 1 - dev.labels.mean()
    assert majority + 0.05 < model.score(overlap(train, dev), dev.labels) < 0.85


def test_shared_words_tell_something_of_similarity_but_not_all(
    folder: Path, datasets: dict[str, DatasetConfig]
) -> None:
    train, dev = (rows_of(folder, datasets, "sts", split) for split in ("train", "dev"))
    assert train.labels is not None and dev.labels is not None
    model = Ridge(alpha=10).fit(overlap(train, train), train.labels)
    assert 0.5 < pearsonr(model.predict(overlap(train, dev)), dev.labels)[0] < 0.85
