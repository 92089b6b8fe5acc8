"""Encoders' tokenizers: both published files, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mtbert.config import EncoderConfig
from mtbert.errors import InputError
from mtbert.model.pretrained import load_encoder, load_tokenizer, resolve
from toy_encoders import MINILM, config_of, edit_config, needs_minilm


@needs_minilm
def test_both_tokenizer_files_cut_text_alike(cache: Path) -> None:
    files = resolve(MINILM)
    whole = load_tokenizer(files)
    built = load_tokenizer(replace(files, tokenizer=files.tokenizer.with_name("vocab.txt")))
    for text in ("What's the café's 3rd-best, um… Zürich?", "[SEP] 东京 is\tbig", "a" * 300, ""):
        assert built.encode(text).ids == whole.encode(text).ids
    assert len(whole.encode("word " * 600).ids) == 602, "truncated"
    assert len(whole.encode("word").ids) == 3, "padded"


def test_tiny_knows_every_sign(cache: Path) -> None:
    config = EncoderConfig(name="tiny", source="tiny", pooling="mean")
    tokenizer = load_tokenizer(resolve(config))
    tokens = tokenizer.encode("An unheard-of word: Qwertz99 ~ {x} isn't #unknown?").tokens
    assert "[UNK]" not in tokens
    assert (tokens[0], tokens[-1]) == ("[CLS]", "[SEP]")
    encoder = load_encoder(config)
    assert (encoder.config.hidden_size, encoder.config.num_hidden_layers) == (64, 2)


def test_a_vocabulary_may_end_without_a_line_break(folder: Path) -> None:
    whole = resolve(config_of(folder)).vocabulary
    path = folder / "vocab.txt"
    path.write_text(path.read_text().removesuffix("\n"))
    assert resolve(config_of(folder)).vocabulary == whole


def test_a_vocabulary_larger_than_the_embeddings_is_refused(folder: Path) -> None:
    edit_config(folder, vocab_size=10)
    with pytest.raises(InputError, match=r"token id \d+; config\.json says vocab_size 10"):
        load_tokenizer(resolve(config_of(folder)))


def test_a_vocabulary_without_special_tokens_is_refused(folder: Path) -> None:
    (folder / "vocab.txt").write_text("some\nwords\n")
    with pytest.raises(InputError, match=r"has no token \[CLS\]"):
        load_tokenizer(resolve(config_of(folder)))


def test_a_cased_vocabulary_keeps_capitals(folder: Path) -> None:
    plain = resolve(config_of(folder)).tokenizer_sha256
    with (folder / "vocab.txt").open("a") as file:
        file.write("Paris\n")
    edit_config(folder, vocab_size=10_000)
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    files = resolve(config_of(folder))
    assert load_tokenizer(files).encode("Paris").tokens == ["[CLS]", "Paris", "[SEP]"]
    assert files.tokenizer_sha256 != plain
