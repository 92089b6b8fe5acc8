"""Questions of the embedded corpus: Quora's pairs.

Two questions are duplicates if they have one kind, one meaning and the same fillers, in whatever words; 5 % of the
labels are turned round. As among real questions, some kinds are asked twice more often than others.
"""

from __future__ import annotations

from typing import NamedTuple

from mtbert.data import sample_words as words
from mtbert.data.sample_dice import Dice


class Question(NamedTuple):
    """``fillers`` are two things that the question may name, each a list of synonyms."""

    kind: str
    meaning: int
    fillers: tuple[list[str], list[str]]


def quora_row(dice: Dice) -> tuple[str, str, int]:
    question = _question(dice, dice.pick(list(words.QUESTIONS)))
    label = int(dice.chance(words.DUPLICATES[question.kind]))
    other = question if label else _another(dice, question)
    first, second = _ask(dice, question), _ask(dice, other)
    while first == second:
        second = _ask(dice, other)
    return first, second, 1 - label if dice.chance(5) else label


def _question(dice: Dice, kind: str) -> Question:
    return Question(kind, dice.below(len(words.QUESTIONS[kind])), dice.two(words.FILLERS[kind]))


def _another(dice: Dice, question: Question) -> Question:
    """A question that is not the same one: unrelated, or with one filler, the meaning or the fillers' order changed."""
    kind, meaning, (a, b) = question
    exchange = ["exchange"] * (2 if kind in words.ORDERED else 0)
    way = dice.pick(["unrelated"] * 8 + ["filler"] * 4 + ["meaning"] * 3 + exchange)
    if way == "unrelated":
        kinds = list(words.QUESTIONS)
        return _question(dice, kinds[(kinds.index(kind) + 1 + dice.below(len(kinds) - 1)) % len(kinds)])
    if way == "exchange":
        return question._replace(fillers=(b, a))
    if way == "meaning":
        count = len(words.QUESTIONS[kind])
        return question._replace(meaning=(meaning + 1 + dice.below(count - 1)) % count)
    new = dice.pick([filler for filler in words.FILLERS[kind] if filler not in (a, b)])
    return question._replace(fillers=(new, b))


def _ask(dice: Dice, question: Question) -> str:
    a, b = question.fillers
    if question.kind in words.SYMMETRIC and dice.chance(50):
        a, b = b, a
    text = dice.pick(words.QUESTIONS[question.kind][question.meaning]).format(a=dice.pick(a), b=dice.pick(b))
    if dice.chance(6):
        aside = dice.pick(words.ASIDES)
        text = f"{aside} {text}" if dice.chance(60) or aside.endswith(":") else f"{text} {aside}"
    # Quora's files hold such questions in quotes of their own, those inside doubled.
    return '"' + text.replace('"', '""') + '"' if '"' in text else text
