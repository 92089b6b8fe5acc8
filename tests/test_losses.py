from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import pearsonr
from torch import Tensor

from mtbert.losses import CLASSIFICATION, RANKING, REGRESSION, bce, cosent, cross_entropy, l1, mse, ordinal, pearson

ROWS = torch.Generator().manual_seed(1)
LOGITS = 3 * torch.randn(200, generator=ROWS)
LABELS = 5 * torch.rand(200, generator=ROWS)


def test_by_hand() -> None:
    logits, labels = torch.tensor([0.0, math.log(3)]), torch.tensor([4.0, 0.0])  # sigmoids 1/2 and 3/4
    assert l1(logits, labels, 5.0).tolist() == pytest.approx([1.5, 3.75])
    assert mse(logits, labels, 5.0).tolist() == pytest.approx([2.25, 14.0625])
    # targets 0.8 and 0: -0.8 ln(1/2) - 0.2 ln(1/2) and -ln(1/4)
    assert bce(logits, labels, 5.0).tolist() == pytest.approx([math.log(2), math.log(4)])
    classes = torch.tensor([[0.0] * 5, [math.log(4), 0.0, 0.0, 0.0, 0.0]])
    assert cross_entropy(classes, torch.tensor([3.0, 0.0]), 4.0).tolist() == pytest.approx([math.log(5), math.log(2)])


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (l1, F.l1_loss(5 * LOGITS.sigmoid(), LABELS, reduction="none")),
        (mse, F.mse_loss(5 * LOGITS.sigmoid(), LABELS, reduction="none")),
        (bce, F.binary_cross_entropy(LOGITS.sigmoid(), LABELS / 5, reduction="none")),
    ],
)
def test_as_torch_has_them(loss: object, expected: Tensor) -> None:
    assert callable(loss)
    torch.testing.assert_close(loss(LOGITS, LABELS, 5.0), expected, rtol=1e-4, atol=1e-5)


def test_cross_entropy_takes_class_numbers_as_floats() -> None:
    logits, labels = torch.randn(50, 5, generator=ROWS), torch.arange(50) % 5
    expected = F.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(cross_entropy(logits, labels.float(), 4.0), expected)


def test_l1_pulls_towards_the_label_by_the_slope_of_the_sigmoid() -> None:
    logits = torch.tensor([0.0, 0.0], requires_grad=True)
    l1(logits, torch.tensor([5.0, 0.0]), 5.0).sum().backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == [-1.25, 1.25]  # 5 * 1/4, minus where the label is above


def test_cosent_sums_over_pairs_in_the_wrong_order_or_nearly_so() -> None:
    similarities, labels = [0.2, 0.7, 0.6], [3.0, 1.0, 1.0]  # row 0 is the better pair, rows 1 and 2 are alike
    expected = math.log(1 + math.exp(20 * (0.7 - 0.2)) + math.exp(20 * (0.6 - 0.2)))
    logits = torch.tensor([math.log(s / (1 - s)) for s in similarities])
    assert cosent(logits, torch.tensor(labels), 5.0).tolist() == pytest.approx([expected] * 3)
    assert cosent(logits, torch.tensor([2.0, 2.0, 2.0]), 5.0).tolist() == [0.0] * 3  # no pair to order


def test_pearson_is_one_minus_the_correlation_of_the_step() -> None:
    expected = 1 - pearsonr(LOGITS.double().sigmoid(), LABELS.double())[0]
    assert pearson(LOGITS, LABELS, 5.0).tolist() == pytest.approx([expected] * 200, abs=1e-5)
    assert pearson(LOGITS[:1], LABELS[:1], 5.0).tolist() == [1.0]
    equal = torch.full((3,), 0.3, requires_grad=True)  # where it is undefined, it pulls nowhere
    losses = pearson(equal, torch.tensor([0.0, 2.0, 5.0]), 5.0)
    losses.mean().backward()
    assert losses.tolist() == [1.0] * 3 and equal.grad is not None and equal.grad.tolist() == [0.0] * 3


def test_ordinal_is_cross_entropy_against_classes_by_squared_distance() -> None:
    logits = torch.randn(2, 3, generator=ROWS)
    expected = []
    for row, label in zip(logits.tolist(), [0, 2], strict=True):
        closeness = [math.exp(-((k - label) ** 2)) for k in range(3)]
        normaliser = math.log(sum(math.exp(x) for x in row))
        expected.append(sum(c / sum(closeness) * (normaliser - x) for c, x in zip(closeness, row, strict=True)))
    assert ordinal(logits, torch.tensor([0.0, 2.0]), 2.0).tolist() == pytest.approx(expected, rel=1e-5)
    certain = torch.tensor([[9.0, 0.0, 0.0], [0.0, 9.0, 0.0]])
    miss, near_miss = ordinal(certain, torch.tensor([2.0, 2.0]), 2.0).tolist()
    assert near_miss < miss


@pytest.mark.parametrize(("name", "loss"), [*CLASSIFICATION.items(), *REGRESSION.items(), *RANKING.items()])
def test_half_precision_logits_give_float32_losses_one_a_row(name: str, loss: object) -> None:
    assert callable(loss)
    shape = (7, 5) if name in CLASSIFICATION else (7,)
    logits = torch.full(shape, 30.0, dtype=torch.bfloat16)  # where a half-precision sigmoid is 1
    values = loss(logits, torch.ones(7), 4.0)
    assert values.dtype == torch.float32
    assert values.shape == (7,)
    assert torch.isfinite(values).all()
