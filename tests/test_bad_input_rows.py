"""CSV files of every kind of wrongness against an independent account of which rows there are."""

from __future__ import annotations

import tempfile
import tracemalloc
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, event, given
from hypothesis import strategies as st

from bad_input import REFUSED, attempt, damaged, one_in
from mtbert.data.rows import Rows, read_rows
from mtbert.data.tokens import prepare
from mtbert.errors import InputError
from toy_data import encoder_files, single, write_csv

# What stands in a label's field, and what it means: a class from 0 to 4, EMPTY, or nothing that is one.
EMPTY, WRONG = "empty", "wrong"
LABELS: dict[str, float | str] = {
    **{
        "0": 0,
        "1": 1,
        "2": 2,
        "4": 4,
        "3.0": 3,
        " 2 ": 2,
        "+1": 1,
        "1e0": 1,
        "04": 4,
        "": EMPTY,
        "  ": EMPTY,
        "\u2003": EMPTY,
    },
    **dict.fromkeys(["5", "-1", "2.5", "nan", "NaN", "inf", "-Infinity", "1_0", "0x1", "one", "1,5", "1e999"], WRONG),
    **dict.fromkeys(["--1", "3.0000001", "1 2", "\N{SUPERSCRIPT TWO}", "None", "true", "9" * 400], WRONG),
}
SIGNS = st.sampled_from(" '\"\t\n\r,;.\\#\ufeff\u2028\x85\xa0\x1f\x7f\u0301\U0001f600")
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0") | SIGNS, max_size=10) | st.sampled_from(
    ["NA", "null", '"', '""', "a\tb", "a\nb\tc\td", "x" * 3000, "=1+1", "\n", "é", "Ã©"]
)
LABEL = st.sampled_from([*sorted(LABELS), *["0", "1", "2", "4"] * 20])


@dataclass(frozen=True)
class File:
    """A file as it was meant, and the bytes it came to."""

    rows: list[tuple[str, str, str]]  # id, sentence, label
    content: bytes
    whole: bool  # every row has the header's fields


@st.composite
def files(draw: st.DrawFn) -> File:
    rows = draw(st.lists(st.tuples(TEXT, TEXT, LABEL), max_size=6))
    if rows and draw(st.booleans()):
        rows += [rows[0]]  # an id that comes twice
    order = draw(st.permutations([0, 1, 2]))
    extra = draw(st.booleans())  # a column that nobody asks for
    names = ["id", "sentence", "label"]
    table = [[*(names[i] for i in order), *["further"] * extra]]
    table += [[*(row[i] for i in order), *[draw(TEXT)] * extra] for row in rows]
    fate = draw(st.sampled_from(["whole"] * 6 + ["short", "long"]))
    if (whole := fate == "whole" or not rows) is False:
        place = draw(st.integers(1, len(rows)))
        table[place] = table[place][:-1] if fate == "short" else [*table[place], draw(TEXT)]
    everywhere, end = draw(st.booleans()), draw(st.sampled_from(["\n", "\r\n", "\r"]))
    text = "".join("\t".join(_quoted(field, everywhere) for field in row) + end for row in table)
    if draw(st.integers(0, 9)) == 0:
        place = draw(st.integers(0, len(text)))
        text = f"{text[:place]}\0{text[place:]}"
    others = ["utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252"]
    encoding = draw(st.sampled_from(["utf-8"] * 20 + others))
    return File(rows, text.encode(encoding, errors="replace"), whole)


def _quoted(field: str, always: bool) -> str:
    special = always or any(sign in field for sign in '"\t\r\n')
    return '"' + field.replace('"', '""') + '"' if special else field


def expected(file: File) -> Rows | str:
    """The rows as anyone would count them, or why the file has to be refused."""
    try:
        text = file.content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return "encoding"
    if "\0" in text:
        return "NUL"
    if not file.whole:
        return "fields"
    kept, dropped = [], Counter[str]()
    for row in file.rows:
        if not row[1].strip():
            dropped["empty sentence"] += 1
        elif LABELS[row[2]] == EMPTY:
            dropped["empty label"] += 1
        else:
            kept.append(row)
    if not kept:
        return "no rows"
    if any(LABELS[label] == WRONG for _, _, label in kept):
        return "label"
    labels = np.array([LABELS[label] for _, _, label in kept], dtype=np.float32)
    texts = [sentence.lower().strip() for _, sentence, _ in kept]
    return Rows([id_ for id_, _, _ in kept], [texts], labels, len(file.rows), dict(dropped))


@given(files())
def test_a_file_is_read_as_it_was_meant_or_refused(file: File) -> None:
    meant = expected(file)
    if not isinstance(meant, str):  # bytes of another encoding that read as other text in UTF-8: nobody can tell
        assume(all(field in file.content.decode("utf-8").replace('""', '"') for row in file.rows for field in row))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.csv"
        path.write_bytes(file.content)
        try:
            found = read_rows(path, single(), labelled=True)
        except InputError as error:
            said = str(error)
            assert said.startswith(f"{path}: ") and len(said.splitlines()) == 1
            event(meant if isinstance(meant, str) else "may be several rows")
            # A field of several lines that reads like rows is refused although it was meant.
            assert isinstance(meant, str) or "takes in whole rows" in said
            return
    event("read")
    assert not isinstance(meant, str), f"read, though {meant}"
    assert (found.ids, found.sentences, found.available, found.dropped) == (
        meant.ids,
        meant.sentences,
        meant.available,
        meant.dropped,
    )
    np.testing.assert_array_equal(found.labels, meant.labels)


WHOLE = "id\tsentence\tlabel\n" + "".join(f'r{i}\t"a ""good""\tfilm {i}"\t{i % 5}\n' for i in range(8))


@given(damaged(WHOLE.encode()), st.booleans())
def test_damaged_bytes_give_checked_rows_or_one_line(content: bytes, labelled: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.csv"
        path.write_bytes(content)
        rows = attempt(lambda: read_rows(path, single(), labelled))
        if rows is REFUSED:
            return
    assert len(rows.ids) == len(rows.sentences[0]) == rows.available - sum(rows.dropped.values())
    if labelled:
        assert set(rows.labels.tolist()) <= {0, 1, 2, 3, 4}
        assert all(rows.sentences[0])


@given(st.integers(0, len(WHOLE) - 1))
def test_a_file_without_its_end_keeps_the_rows_before_it(length: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.csv"
        path.write_text(WHOLE[:length])
        rows = attempt(lambda: read_rows(path, single(), labelled=True))
    before = WHOLE[:length].count("\n") - 1  # whole rows that are left
    assert rows is REFUSED or rows.ids[:before] == [f"r{i}" for i in range(before)]


@pytest.fixture(scope="module")
def prepared_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rows, and a cache in which they are."""
    return tmp_path_factory.mktemp("prepared")


@one_in(2)
@given(data=st.data())
def test_a_damaged_cache_entry_is_made_again(data: st.DataObject, prepared_once: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MTBERT_CACHE", str(prepared_once / "cache"))
        files, path = encoder_files(prepared_once / "encoder"), prepared_once / "x.csv"
        if not path.exists():
            rows = [[f"r{i}", "a good film ." * (i % 3 + 1), i % 5] for i in range(9)]
            write_csv(path, ["id", "sentence", "label"], rows)
        whole = prepare(path, single(), True, files)
        (entry,) = (prepared_once / "cache" / "rows").iterdir()
        entry.write_bytes(data.draw(damaged(entry.read_bytes())))
        again = prepare(path, single(), True, files)
        assert again.ids == whole.ids and again.labels.tolist() == whole.labels.tolist()
        assert again.sentences[0].flat.tolist() == whole.sentences[0].flat.tolist()
        assert [each.name for each in entry.parent.iterdir()] == [entry.name]


def test_a_refused_file_leaves_nothing_in_the_cache(cache: Path, tmp_path: Path) -> None:
    path = write_csv(tmp_path / f"{'long' * 60}.csv", ["id", "sentence", "label"], [["a", "good", "7"]])
    files = encoder_files(tmp_path / "encoder")
    assert attempt(lambda: prepare(path, single(), True, files)) is REFUSED
    assert not (cache / "rows").exists()
    write_csv(path, ["id", "sentence", "label"], [["a", "good", "3"]])
    assert prepare(path, single(), True, files).ids == ["a"]


def test_memory_is_bounded_by_the_size_of_the_file(tmp_path: Path) -> None:
    rows = [[i, "a good film " * 20, 1] for i in range(10_000)]
    path = write_csv(tmp_path / "x.csv", ["id", "sentence", "label"], rows)
    read_rows(path, single(), labelled=True)  # what is imported on the way does not count
    tracemalloc.start()
    read_rows(path, single(), labelled=True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6 * path.stat().st_size
