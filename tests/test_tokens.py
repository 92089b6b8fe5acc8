from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mtbert.data.tokens
from mtbert.data.tokens import Prepared, Ragged, prepare
from mtbert.errors import InputError
from mtbert.model.sources import EncoderFiles
from toy_data import encoder_files, lists, pair, ragged, single, write_csv

SEQUENCES = st.lists(st.lists(st.integers(0, 9), max_size=4), min_size=1, max_size=6)


@pytest.fixture
def files(tmp_path: Path, cache: Path) -> EncoderFiles:
    return encoder_files(tmp_path / "encoder")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    rows = [["x", "A good film.", "bad", "1"], ["ü", "", "b", "2"], ["", "c?", "a d zebra", "0.5"]]
    return write_csv(tmp_path / "pairs.csv", ["id", "one", "two", "label"], rows)


def entries(cache: Path) -> list[Path]:
    return sorted((cache / "rows").iterdir()) if (cache / "rows").is_dir() else []


def read_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise AssertionError("a file was read")

    monkeypatch.setattr(mtbert.data.tokens, "read_rows", fail)


def assert_same(one: Prepared, other: Prepared) -> None:
    assert (one.ids, one.available, one.dropped) == (other.ids, other.available, other.dropped)
    np.testing.assert_array_equal(one.labels, other.labels)
    assert [lists(side) for side in one.sentences] == [lists(side) for side in other.sentences]


def test_rows_are_tokenised_without_special_tokens(path: Path, files: EncoderFiles) -> None:
    prepared = prepare(path, pair(), True, files)
    assert prepared.ids == ["x", ""]
    assert prepared.labels is not None and prepared.labels.tolist() == [1, 0.5]
    assert lists(prepared.sentences[0]) == [[4, 8, 10, 11], [6, 12]]  # a good film . | c ?
    assert lists(prepared.sentences[1]) == [[9], [4, 7, 1]]  # bad | a d [UNK]
    assert (prepared.available, prepared.dropped) == (3, {"empty one": 1})


def test_a_second_start_reads_no_file(
    path: Path, files: EncoderFiles, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepare(path, pair(), True, files)
    read_nothing(monkeypatch)
    assert_same(prepare(path, pair(), True, files), first)
    assert len(entries(cache)) == 1


def test_unlabelled_rows_come_back_without_labels(path: Path, files: EncoderFiles) -> None:
    first, second = (prepare(path, pair(), False, files) for _ in range(2))
    assert first.labels is None and len(first.ids) == 3
    assert_same(first, second)


def test_rows_without_any_token_or_id_come_back(tmp_path: Path, files: EncoderFiles) -> None:
    path = write_csv(tmp_path / "x.csv", ["id", "sentence"], [["", " "]])
    first, second = (prepare(path, single(), False, files) for _ in range(2))
    assert first.ids == [""] and lists(first.sentences[0]) == [[]]
    assert_same(first, second)


def test_what_changes_the_rows_makes_a_new_entry(path: Path, files: EncoderFiles, cache: Path) -> None:
    prepare(path, pair(), True, files)
    prepare(path, pair(factor=2.0), True, files)
    prepare(path, pair(), False, files)
    prepare(path, dataclasses.replace(pair(), text="sentence"), True, files)
    prepare(path, pair(), True, dataclasses.replace(files, tokenizer_sha256="another"))
    write_csv(path, ["id", "one", "two", "label"], [["x", "c", "d", "1"]])
    assert lists(prepare(path, pair(), True, files).sentences[0]) == [[6]]
    assert len(entries(cache)) == 6


def test_a_file_of_another_name_or_task_shares_no_wrong_entry(path: Path, files: EncoderFiles, cache: Path) -> None:
    first = prepare(path, pair(), True, files)
    assert_same(prepare(path, dataclasses.replace(pair(), task="para", files={"dev": ["x"]}), True, files), first)
    assert len(entries(cache)) == 1


@pytest.mark.parametrize("damage", ["empty", "cut", "zeros", "garbage", *range(0, 600, 37)])
def test_a_damaged_entry_is_made_again(path: Path, files: EncoderFiles, cache: Path, damage: str | int) -> None:
    first = prepare(path, pair(), True, files)
    (entry,) = entries(cache)
    content = bytearray(entry.read_bytes())
    if isinstance(damage, int):
        content[damage % len(content)] ^= 4
    entry.write_bytes(
        {"empty": b"", "cut": content[:-3], "zeros": bytes(len(content)), "garbage": b"\xff" * 99}.get(damage, content)  # type: ignore[call-overload]
    )
    assert_same(prepare(path, pair(), True, files), first)
    assert_same(prepare(path, pair(), True, files), first)


def test_a_file_that_cannot_be_read_leaves_no_entry(path: Path, files: EncoderFiles, cache: Path) -> None:
    path.write_text(path.read_text() + "broken\n")
    with pytest.raises(InputError, match="line 5: 1 field; expected 4"):
        prepare(path, pair(), True, files)
    with pytest.raises(InputError, match="no such file"):
        prepare(path.with_name("gone.csv"), pair(), True, files)
    assert entries(cache) == []


def test_two_at_once_leave_one_whole_entry(path: Path, files: EncoderFiles, cache: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: prepare(path, pair(), True, files), range(8)))
    for prepared in made[1:]:
        assert_same(prepared, made[0])
    assert len(entries(cache)) == 1


@given(SEQUENCES, st.data())
def test_taking_and_cutting_rows(rows: list[list[int]], data: st.DataObject) -> None:
    taken = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=6))
    longest = data.draw(st.integers(0, 5))
    found = ragged(rows).take(np.array(taken, dtype=np.int64)).cut(longest)
    assert lists(found) == [rows[row][:longest] for row in taken]


@given(st.lists(SEQUENCES, min_size=1, max_size=4))
def test_concatenating_parts_keeps_rows_in_order(parts: list[list[list[int]]]) -> None:
    joined = Ragged.concatenate([ragged(part).cut(3) for part in parts])
    assert lists(joined) == [row[:3] for part in parts for row in part]


@given(st.lists(st.tuples(*[st.lists(st.integers(0, 9), max_size=4)] * 3), min_size=1, max_size=6))
def test_joining_parts_row_by_row(rows: list[tuple[list[int], ...]]) -> None:
    joined = Ragged.join([ragged(part).cut(3) for part in zip(*rows, strict=True)])
    assert lists(joined) == [[token for part in row for token in part[:3]] for row in rows]


def test_repeated_tokens_take_no_room() -> None:
    repeated = Ragged.repeated(7, np.array([2, 0, 5]))
    assert lists(repeated) == [[7, 7], [], [7] * 5]
    assert len(repeated.flat) == 5
