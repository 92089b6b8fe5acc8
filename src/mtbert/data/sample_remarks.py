"""Film remarks of the embedded corpus: SST's sentences and CFIMDB's reviews.

A sentence has a value in tenths of a class, -20 (awful) .. 20 (superb), that its parts decide together; the label
follows from it. 8 % of SST's labels are then moved by one class and 4 % of CFIMDB's turned round.
"""

from __future__ import annotations

from typing import NamedTuple

from mtbert.data import sample_words as words
from mtbert.data.sample_dice import Dice

CLASSES = [0] * 12 + [1] * 26 + [2] * 19 + [3] * 28 + [4] * 15  # shares in percent, as in the course's files
STRENGTHS = (-2, -1, 1, 2)


class Remark(NamedTuple):
    text: str
    value: int


def sst_row(dice: Dice) -> tuple[str, int]:
    label, remark = dice.pick(CLASSES), _remark(dice)
    while _class(remark.value) != label:
        remark = _remark(dice)
    if dice.chance(8):
        label = min(4, max(0, label + dice.pick((-1, 1))))
    return _sentence(dice, remark.text), label


def cfimdb_row(dice: Dice) -> tuple[str, int]:
    """A review of 26 to 50 words whose sentences mostly, not all, lean to its label."""
    label, review = dice.below(2), ""
    while len(review.split()) < 26:
        wanted = label if dice.chance(90) else 1 - label
        remark = _remark(dice)
        while (remark.value > 0) != wanted and abs(remark.value) >= 5:
            remark = _remark(dice)
        text = dice.pick(words.REVIEW_QUOTES).format(genre=dice.pick(words.GENRES)) if dice.chance(6) else remark.text
        review += f" {dice.pick(words.REVIEW_PAUSES)} {_sentence(dice, text)}"
    return " ".join(review.split()), 1 - label if dice.chance(4) else label


def _class(value: int) -> int:
    return 2 + (value >= 5) + (value >= 15) - (value <= -5) - (value <= -15)


def _sentence(dice: Dice, text: str) -> str:
    text = " ".join(text.split())
    return text[0].upper() + text[1:] + dice.pick(words.STOPS)


def _remark(dice: Dice) -> Remark:
    """One sentence: what comes after a *but* outweighs what stands before it, and hearsay does not count."""
    kind = dice.pick(["one"] * 9 + ["and"] * 4 + ["but"] * 4 + ["fact"] * 2 + ["plot"] * 3 + ["hearsay"] * 2 + ["wish"])
    a, b, word = _opinion(dice), _opinion(dice), dice.pick(words.ADJECTIVES[dice.pick(STRENGTHS)])
    if kind == "one":
        return a
    if kind == "plot":
        return Remark(_fact(dice), 0)
    if kind == "wish":
        return Remark(dice.pick(words.JOINTS[kind]).format(word=dice.pick(words.ADJECTIVES[dice.pick((1, 2))])), -9)
    first = _fact(dice) if kind == "fact" else a.text
    value = {"and": _tenths(6 * a.value + 6 * b.value), "but": _tenths(3 * a.value + 8 * b.value)}.get(kind, b.value)
    return Remark(dice.pick(words.JOINTS[kind]).format(a=first, b=b.text, word=word), value)


def _tenths(total: int) -> int:
    """A tenth of ``total``, rounded towards zero."""
    return abs(total) // 10 * (1 if total > 0 else -1)


def _opinion(dice: Dice) -> Remark:
    strength, aspect = dice.pick(STRENGTHS), dice.pick(words.ASPECTS)
    if dice.chance(30):
        return Remark(f"{aspect} {dice.pick(words.PREDICATES[strength])}", 10 * strength)
    modifier = dice.pick(["plain"] * 8 + ["intensify"] * 4 + ["diminish"] * 3 + ["negate"] * 3 + ["insist", "reverse"])
    text = f"{aspect} is {dice.pick(words.MODIFIERS[modifier])} {dice.pick(words.ADJECTIVES[strength])}"
    return Remark(text, _modified(10 * strength, modifier))


def _modified(value: int, modifier: str) -> int:
    """The value of an adjective under a modifier; *not awful* is still no praise, *not superb* a reproach."""
    sign = 1 if value > 0 else -1
    return {
        "plain": value,
        "intensify": value + 9 * sign,
        "diminish": (abs(value) + 2) // 2 * sign,
        "negate": {20: -6, 10: -11, -10: 6, -20: 3}[value],
        "insist": 22 * sign,
        "reverse": -value,
    }[modifier]


def _fact(dice: Dice) -> str:
    hero, deed = dice.pick(words.HEROES), dice.pick(words.DEEDS)
    return dice.pick(words.FACTS).format(
        film=dice.pick(words.FILMS),
        hero=hero,
        deed=deed[hero in words.PLURAL_HEROES],
        genre=dice.pick(words.GENRES),
        setting=dice.pick(words.SETTINGS),
    )
