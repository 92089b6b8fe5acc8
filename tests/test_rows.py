from __future__ import annotations

import csv
import io
import itertools
import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtbert.compose import compose
from mtbert.data.rows import normalize, parse_table, read_rows, read_table
from mtbert.errors import InputError
from toy_data import pair, single, write_csv

HEADER = "\tid\tsentence\tlabel\n"


def refused(path: Path, content: str | bytes, labelled: bool = True) -> str:
    """What is said about a file, without its path."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as caught:
        read_rows(path, single(), labelled)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message.removeprefix(f"{path}: ")


def test_normalisation_is_the_courses() -> None:
    assert normalize("  What's  up, Doc?\tA.B", "pair") == "what 's up , doc ? a .b"
    assert normalize("  What's  up, Doc? ", "sentence") == "what's  up, doc?"


def test_rows_are_read_in_order_with_their_labels(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(HEADER + "7\tb\t Good , FILM \t3\n9\ta\tbad\t1.0\n")
    rows = read_rows(path, single(), labelled=True)
    assert rows.ids == ["b", "a"]
    assert rows.sentences == [["good , film", "bad"]]
    assert rows.labels is not None and rows.labels.dtype == np.float32
    assert rows.labels.tolist() == [3, 1]
    assert (rows.available, rows.dropped) == (2, {})


def test_text_that_looks_like_a_missing_value_is_text(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "x.csv", ["id", "sentence"], [["1", "NA"], ["nan", "null"], ["007", "None"]])
    rows = read_rows(path, single(), labelled=False)
    assert rows.ids == ["1", "nan", "007"]
    assert rows.sentences == [["na", "null", "none"]]


def test_byte_order_mark_crlf_and_blank_lines_are_no_content(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b"\xef\xbb\xbfid\tsentence\tlabel\r\n\r\n1\tgood\t1\r\n   \r\n2\tbad\t0\r\n\r\n")
    frame = read_table(path, "\t")
    assert frame["id"].tolist() == ["1", "2"]
    assert frame.index.tolist() == [3, 5]


def test_quoted_fields_may_hold_quotes_tabs_and_line_breaks(tmp_path: Path) -> None:
    texts = ['say "hi"', "a\tb", "a\nb", "a\r\nb", '"', '""', "it ''is'' \"", "\n", "a\u2028b"]
    path = write_csv(tmp_path / "x.csv", ["id", "sentence", "label"], [[i, text, 0] for i, text in enumerate(texts)])
    assert read_table(path, "\t")["sentence"].tolist() == texts


def test_a_quote_inside_an_unquoted_field_is_text(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(HEADER + '0\ta\tthe "best" film\t1\n1\tb\tbad"\t0\n')
    assert read_table(path, "\t")["sentence"].tolist() == ['the "best" film', 'bad"']


def test_rows_without_sentence_or_label_are_dropped_and_counted(tmp_path: Path) -> None:
    content = [
        ["1", "a", " ", "1"],
        ["2", "", "", ""],
        ["3", "a", "b", " "],
        ["4", "a", "b", "2"],
        ["5", "\t", "b", ""],
    ]
    path = write_csv(tmp_path / "x.csv", ["id", "one", "two", "label"], content)
    rows = read_rows(path, pair(), labelled=True)
    assert rows.ids == ["4"]
    assert rows.available == 5
    assert rows.dropped == {"empty one": 2, "empty two": 1, "empty label": 1}


def test_every_unlabelled_row_is_kept_since_each_is_owed_a_prediction(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "x.csv", ["id", "one", "two"], [["1", "a", ""], ["2", "a", "b"]])
    rows = read_rows(path, pair(), labelled=False)
    assert rows.ids == ["1", "2"]
    assert rows.labels is None and rows.dropped == {}


def test_ids_that_come_twice_are_kept(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "x.csv", ["id", "sentence"], [["1", "a"], ["1", "b"]])
    assert read_rows(path, single(), labelled=False).ids == ["1", "1"]


def test_labels_are_rescaled(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "x.csv", ["id", "one", "two", "label"], [[1, "a", "b", 1], [2, "a", "b", 3.4]])
    rows = read_rows(path, pair(low=1.0, offset=1.0, factor=1.25), labelled=True)
    assert rows.labels is not None
    np.testing.assert_allclose(rows.labels, [0, 3])


def test_labels_are_mapped(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "x.csv", ["id", "sentence", "label"], [[1, "a", 1], [2, "a", "0.0"]])
    rows = read_rows(path, single(high=1.0, map={0: 1.0, 1: 3.0}), labelled=True)
    assert rows.labels is not None and rows.labels.tolist() == [3, 1]


@pytest.mark.parametrize("label", ["5", "-1", "nan", "NaN", "inf", "-Infinity", "good", "2.5", "1,0", "1_0", "1e400"])
def test_a_wrong_label_is_named_with_its_line(tmp_path: Path, label: str) -> None:
    said = refused(tmp_path / "x.csv", HEADER + f"0\ta\tx\t1\n\n1\tb\ty\t{label}\n")
    assert said == f"line 4: label='{label}'; expected a whole number from 0 to 4"


def test_a_label_that_the_map_lacks_is_named(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "x.csv", ["id", "sentence", "label"], [[1, "a", 1], [2, "a", 2]])
    with pytest.raises(InputError, match=r"x.csv: line 3: label='2'; expected a key of label.map: 0, 1$"):
        read_rows(path, single(map={0: 1.0, 1: 3.0}), labelled=True)
    with pytest.raises(InputError, match="expected a whole number from 0 to 4"):  # a map has whole keys
        write_csv(path, ["id", "sentence", "label"], [[1, "a", 0.5]])
        read_rows(path, single(integer=False, map={0: 1.0, 1: 3.0}), labelled=True)


def test_words_are_mapped_and_others_named(tmp_path: Path) -> None:
    header, words = ["id", "sentence", "label"], {"negative": 0.0, "neutral": 2.0, "positive": 4.0}
    path = write_csv(tmp_path / "x.csv", header, [["a", "one", "positive"], ["b", "two", " neutral "]])
    assert read_rows(path, single(map=words), labelled=True).labels.tolist() == [4.0, 2.0]  # type: ignore[union-attr]
    write_csv(path, header, [["a", "one", "positive"], ["b", "two", "Neutral"]])
    with pytest.raises(InputError, match=r"x.csv: line 3: label='Neutral'; expected a key of label.map: negative, neu"):
        read_rows(path, single(map=words), labelled=True)


def test_lines_count_those_inside_quoted_fields(tmp_path: Path) -> None:
    said = refused(tmp_path / "x.csv", HEADER + '0\ta\t"x\ny\nz"\t1\n1\tb\ty\t9\n')
    assert said.startswith("line 5: label='9'")


BROKEN = {
    "empty": ("", "is empty; expected a header"),
    "blank": ("\n \n\n", "is empty; expected a header"),
    "header only": (HEADER, "no rows under the header"),
    "surplus field": (HEADER + "0\ta\tx\t1\tmore\n", "line 2: 5 fields; expected 4, as in the header"),
    "surplus in one row": (HEADER + "0\ta\tx\t1\n\n1\tb\ty\t2\tmore\n", "line 4: 5 fields; expected 4"),
    "missing field": (HEADER + "0\ta\tx\t1\n1\tb\ty\n", "line 3: 3 fields; expected 4"),
    "one field": (HEADER + "0\ta\tx\t1\nend\n", "line 3: 1 field; expected 4"),
    "commas": ("id,sentence,label\n1,a,0\n", "the header is one field, 'id,sentence,label'; expected fields separated"),
    "quote to the end": (HEADER + '0\ta\t"x\t1\n1\tb\ty\t0\n', "line 2: a quote that opens here is never closed"),
    "quote over rows": (HEADER + '0\ta\t"x\t1\n1\tb\ty"\t0\n', "line 2: a quote that opens here takes in whole rows"),
    "quote on its own": (
        HEADER + '"\n0\ta\tx\t1\n1\tb\t"\ty"\t0\n',
        "line 2: a quote that opens here takes in whole rows up to line 4",
    ),
    "text after quote": (HEADER + '0\ta\t"x" y\t1\n', "line 2: text after a closing quote; expected quotes in pairs"),
    "quote over a quote": (HEADER + '0\ta\t"x\t1\n1\tb\t"y" z\t0\n', "line 2: text after a closing quote"),
    "NUL": (HEADER + "0\ta\tx\t1\n1\tb\ty\0z\t0\n", "line 3: a NUL byte"),
    "latin-1": (HEADER.encode() + "0\ta\tcafé\t1\n".encode("latin-1"), "line 2: byte 0xe9 is not UTF-8"),
    "UTF-16": (HEADER.encode("utf-16"), "line 1: byte 0xff is not UTF-8"),
    "huge field": (HEADER + f"0\ta\t{'x' * 140_000}\t1\n", "line 2: field larger than field limit"),
    "nothing to use": (HEADER + "0\ta\t\t1\n1\tb\tx\t\n", "none of its 2 rows can be used: 1 empty sentence, 1 empty"),
    "column twice": ("id\tsentence\tsentence\tlabel\n1\ta\tb\t0\n", "2 columns are named 'sentence'; expected one"),
    "sentence column": ("id\tSentence\tlabel\n1\ta\t0\n", "no column 'sentence'; did you mean 'Sentence'?"),
    "id column": ("\tidx\tsentence\tlabel\n1\ta\tx\t0\n", "no column 'id'; did you mean 'idx'?"),
    "label column": (
        "\tid\tsentence\tscore\n1\ta\tx\t0\n",
        "no column 'label'; expected one of: id, sentence, score",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_one_line_with_the_place(tmp_path: Path, name: str) -> None:
    content, expected = BROKEN[name]
    assert refused(tmp_path / "x.csv", content).startswith(expected)


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    write_csv(tmp_path / "quora-train.csv", ["id"], [])
    with pytest.raises(InputError, match=r"quora-trian.csv: no such file; did you mean 'quora-train.csv'\?"):
        read_table(tmp_path / "quora-trian.csv", "\t")
    with pytest.raises(InputError, match="no such file; `mtbert data` downloads"):
        read_table(tmp_path / "nowhere" / "x.csv", "\t")
    with pytest.raises(InputError, match="no such file"):
        read_table(tmp_path, "\t")


def test_other_separators_and_sources() -> None:
    frame = parse_table(b'id,text\n1,"a, b"\n', "standard input", ",")
    assert frame.to_dict("records") == [{"id": "1", "text": "a, b"}]
    prose = parse_table(b'id,text,label\n1,"Well, no,\nyes, so, so\nand, so, on",0\n', "standard input", ",")
    assert prose["text"].tolist() == ["Well, no,\nyes, so, so\nand, so, on"]
    with pytest.raises(InputError, match="standard input: line 2: 3 fields; expected 2"):
        parse_table(b"id,text\n1,a, b\n", "standard input", ",")


def test_long_values_are_cut_in_messages(tmp_path: Path) -> None:
    said = refused(tmp_path / "x.csv", HEADER + f"0\ta\tx\t{'9' * 500}\n")
    assert len(said) < 120


FIELD = st.text(st.characters(codec="utf-8", exclude_characters="\0") | st.sampled_from("\"\t\n\r' "), max_size=8)


@given(st.lists(st.tuples(FIELD, FIELD, FIELD), min_size=1, max_size=6))
@settings(max_examples=200, deadline=None)
def test_what_a_csv_writer_wrote_is_read_or_refused_never_misread(rows: list[tuple[str, str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write_csv(Path(folder) / "x.csv", ["id", "sentence", "label"], rows)
        try:
            frame = read_table(path, "\t")
        except InputError as error:
            assert "takes in whole rows" in str(error)  # text that cannot be told from rows
            return
    assert [tuple(row) for row in frame.itertuples(index=False)] == rows


WORD = st.text("ab,' ", min_size=1, max_size=4)
CLEAN_ROW = st.tuples(WORD, WORD | st.just('say ""x""') | st.just("\tb"), st.sampled_from("01"))


@given(st.lists(CLEAN_ROW, min_size=1, max_size=5), st.sampled_from('"\t\n\r\0'), st.data())
@settings(max_examples=300, deadline=None)
def test_one_stray_sign_never_changes_other_rows(rows: list[tuple[str, ...]], sign: str, data: st.DataObject) -> None:
    """A sign put anywhere into a file: an error, or every other row is read as before."""
    ends = [len(_written(rows[:count])) for count in range(len(rows) + 1)]
    body = _written(rows)
    place = data.draw(st.integers(0, len(body)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.csv"
        path.write_bytes(f"id\tsentence\tlabel\n{body[:place]}{sign}{body[place:]}".encode())
        try:
            found = [tuple(row) for row in read_table(path, "\t").itertuples(index=False)]
        except InputError:
            return
    assert len(found) == len(rows)
    for index, (start, end) in enumerate(itertools.pairwise(ends)):
        assert found[index] == rows[index] or start - 1 <= place <= end  # -1: before the \n of \r\n


def _written(rows: list[tuple[str, ...]]) -> str:
    written = io.StringIO()
    csv.writer(written, delimiter="\t").writerows(rows)
    return written.getvalue()


@given(st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_rows_or_an_error(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.csv"
        path.write_bytes(b"id\tsentence\tlabel\n" + content)
        try:
            rows = read_rows(path, single(), labelled=True)
        except InputError:
            return
    assert rows.labels is not None and all(math.isfinite(label) and 0 <= label <= 4 for label in rows.labels)
    assert len(rows.ids) == len(rows.labels) == rows.available - sum(rows.dropped.values())


COUNTS = {
    "ids-sst-train.csv": 8544,
    "ids-sst-dev.csv": 1101,
    "ids-sst-test-student.csv": 2210,
    "quora-dev.csv": 20214,
    "sts-train.csv": 6040,
    "sts-dev.csv": 863,
    "sts-test-student.csv": 1725,
    "ids-cfimdb-train.csv": 1707,
    "ids-cfimdb-dev.csv": 245,
    "sick2014.csv": 9840,
}


def test_real_files_are_read_as_the_paper_counts_them(shared: Path) -> None:
    config = compose(["experiment=09_sst_not_polar_sts_sick"])
    for dataset in config.datasets.values():
        for split, names in dataset.files.items():
            for name in (name for name in names if name in COUNTS):
                rows = read_rows(shared / "data" / name, dataset, labelled=split != "test")
                assert rows.available == COUNTS[name], name
                dropped = {"empty sentence2": 1, "empty is_duplicate": 1} if name == "quora-dev.csv" else {}
                assert rows.dropped == dropped, name
                assert len(set(rows.ids)) == len(rows.ids), name


def test_real_labels_are_rescaled(shared: Path) -> None:
    config = compose(["experiment=09_sst_not_polar_sts_sick"])
    cfimdb = read_rows(shared / "data" / "ids-cfimdb-dev.csv", config.datasets["cfimdb"], labelled=True).labels
    sick = read_rows(shared / "data" / "sick2014.csv", config.datasets["sick"], labelled=True).labels
    quora = read_rows(shared / "data" / "quora-dev.csv", config.datasets["quora"], labelled=True).labels
    assert cfimdb is not None and sick is not None and quora is not None
    assert set(cfimdb.tolist()) == {1, 3}
    assert (sick.min(), sick.max(), sick[0]) == (0, 5, np.float32((4.5 - 1) * 1.25))
    assert round(float(quora.mean()), 3) == 0.375
