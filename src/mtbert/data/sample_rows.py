"""The sentences of the embedded corpus, drawn from ``sample_words`` together with what they mean.

A label is computed from the meaning (the value of an opinion, the sameness of two questions, the agreement of two
scenes), then a few are made wrong on purpose: 8 % of SST by one class, 4 % of CFIMDB, 5 % of Quora, STS and SICK.
All sums are of integers, so that no platform rounds them differently.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import NamedTuple, TypeVar

from mtbert.data import sample_words as words

SENTIMENTS = [0] * 12 + [1] * 26 + [2] * 19 + [3] * 25 + [4] * 18  # shares in percent, as in the course's files
WEIGHTS = {"count": 5, "attribute": 8, "agent": 26, "action": 30, "object": 19, "place": 12}  # of a scene's parts

T = TypeVar("T")


class Dice:
    """Seeded draws from ``Random.random`` alone: the one stream that Python promises to keep over versions."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed).random

    def below(self, end: int) -> int:
        return int(self._random() * end)

    def chance(self, percent: int) -> bool:
        return self.below(100) < percent

    def pick(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]

    def two(self, options: Sequence[T]) -> tuple[T, T]:
        """Two different places of a list."""
        first, step = self.below(len(options)), 1 + self.below(len(options) - 1)
        return options[first], options[(first + step) % len(options)]


# --- film remarks: a text and its value in tenths of a class, -20 (awful) .. 20 (superb) -----------------------


class Remark(NamedTuple):
    text: str
    value: int


def _modified(value: int, modifier: str) -> int:
    sign = 1 if value > 0 else -1
    changed = {
        "plain": value,
        "intensify": value + 9 * sign,
        "diminish": (abs(value) + 2) // 2 * sign,
        "negate": -11 if value == 10 else -6 if value > 0 else 6 if value == -10 else 3,
        "insist": 22 * sign,
        "reverse": -value,
    }
    return changed[modifier]


def _opinion(dice: Dice) -> Remark:
    strength, aspect = dice.pick((-2, -1, 1, 2)), dice.pick(words.ASPECTS)
    if dice.chance(30):
        return Remark(f"{aspect} {dice.pick(words.PREDICATES[strength])}", 10 * strength)
    modifier = dice.pick(["plain"] * 8 + ["intensify"] * 4 + ["diminish"] * 3 + ["negate"] * 3 + ["insist", "reverse"])
    text = f"{aspect} is {dice.pick(words.MODIFIERS[modifier])} {dice.pick(words.ADJECTIVES[strength])}"
    return Remark(text, _modified(10 * strength, modifier))


def _fact(dice: Dice) -> str:
    hero, deed = dice.pick(words.HEROES), dice.pick(words.DEEDS)
    return dice.pick(words.FACTS).format(
        film=dice.pick(words.FILMS),
        hero=hero,
        deed=deed[hero in words.PLURAL_HEROES],
        genre=dice.pick(words.GENRES),
        setting=dice.pick(words.SETTINGS),
    )


def _remark(dice: Dice) -> Remark:
    """One sentence: what comes after a *but* outweighs what stands before it, and hearsay does not count."""
    kind = dice.pick(["one"] * 7 + ["and"] * 4 + ["but"] * 4 + ["fact"] * 4 + ["plot"] * 3 + ["hearsay"] * 2 + ["wish"])
    a, b, word = _opinion(dice), _opinion(dice), dice.pick(words.ADJECTIVES[dice.pick((-2, -1, 1, 2))])
    if kind == "one":
        return a
    if kind == "plot":
        return Remark(_fact(dice), 0)
    if kind == "wish":
        return Remark(dice.pick(words.JOINTS[kind]).format(word=dice.pick(words.ADJECTIVES[dice.pick((1, 2))])), -9)
    first = _fact(dice) if kind == "fact" else a.text
    value = {"and": int((a.value + b.value) * 0.6), "but": int((3 * a.value + 8 * b.value) / 10)}.get(kind, b.value)
    return Remark(dice.pick(words.JOINTS[kind]).format(a=first, b=b.text, word=word), value)


def _sentence(dice: Dice, text: str) -> str:
    text = " ".join(text.split())
    return text[0].upper() + text[1:] + dice.pick(words.STOPS)


def sst_row(dice: Dice) -> tuple[str, int]:
    label, remark = dice.pick(SENTIMENTS), _remark(dice)
    while _sentiment(remark.value) != label:
        remark = _remark(dice)
    if dice.chance(8):
        label = min(4, max(0, label + dice.pick((-1, 1))))
    return _sentence(dice, remark.text), label


def _sentiment(value: int) -> int:
    return 2 + (value >= 5) + (value >= 15) - (value <= -5) - (value <= -15)


def cfimdb_row(dice: Dice) -> tuple[str, int]:
    """A review of 30 to 60 words whose sentences mostly, not all, lean to its label."""
    label, review = dice.below(2), ""
    while len(review.split()) < 32:
        wanted = label if dice.chance(90) else 1 - label
        remark = _remark(dice)
        while (remark.value > 0) != wanted and abs(remark.value) >= 5:
            remark = _remark(dice)
        text = dice.pick(words.REVIEW_QUOTES).format(genre=dice.pick(words.GENRES)) if dice.chance(6) else remark.text
        review += f" {dice.pick(words.REVIEW_PAUSES)} {_sentence(dice, text)}"
    return " " + " ".join(review.split()), 1 - label if dice.chance(4) else label


# --- questions -------------------------------------------------------------------------------------------------


class Question(NamedTuple):
    kind: str
    meaning: int
    fillers: tuple[list[str], list[str]]


def _question(dice: Dice, kind: str | None = None) -> Question:
    kind = kind or dice.pick(list(words.QUESTIONS))
    return Question(kind, dice.below(len(words.QUESTIONS[kind])), dice.two(words.FILLERS[kind]))


def _ask(dice: Dice, question: Question) -> str:
    wording = dice.pick(words.QUESTIONS[question.kind][question.meaning])
    a, b = question.fillers
    if question.kind in words.SYMMETRIC and dice.chance(50):
        a, b = b, a
    text = wording.format(a=dice.pick(a), b=dice.pick(b))
    if dice.chance(12):
        aside = dice.pick(words.ASIDES)
        text = f"{aside} {text}" if dice.chance(60) or aside.endswith(":") else f"{text} {aside}"
    return text


def _another(dice: Dice, question: Question) -> Question:
    """A question that is not the same one: other fillers, exchanged fillers, another meaning, or unrelated."""
    kind, meaning, (a, b) = question
    way = dice.pick(["filler"] * 4 + ["meaning"] * 4 + ["unrelated"] * 2 + ["exchange"] * 4 * (kind in words.ORDERED))
    other = _question(dice, None if way == "unrelated" else kind)
    if way == "exchange":
        return Question(kind, meaning, (b, a))
    if way == "meaning":
        return question._replace(
            meaning=(meaning + 1 + dice.below(len(words.QUESTIONS[kind]) - 1)) % len(words.QUESTIONS[kind])
        )
    if way == "filler":
        new = next(filler for filler in (*other.fillers, *words.FILLERS[kind]) if filler not in (a, b))
        return Question(kind, meaning, (new, b))
    return other if other[:2] != question[:2] else _another(dice, question)


def quora_row(dice: Dice) -> tuple[str, str, int]:
    question, label = _question(dice), int(dice.chance(40))
    other = question if label else _another(dice, question)
    first, second = _ask(dice, question), _ask(dice, other)
    while first == second:
        second = _ask(dice, other)
    return first, second, 1 - label if dice.chance(5) else label


# --- scenes: who does what to what, where ----------------------------------------------------------------------


class Scene(NamedTuple):
    """Each part is a list of synonyms; ``action`` is the row of the table of actions."""

    world: str
    count: list[str]
    attribute: list[str]
    agent: list[str]
    action: int
    object: list[str]
    place: list[str]
    denied: bool = False


def _scene(dice: Dice, world: str) -> Scene:
    agent = dice.pick(dice.pick(words.AGENTS[world]))
    action = dice.below(len(words.ACTIONS[world]))
    objects = [one for one in words.ACTIONS[world][action][1] if one != agent] or [[""]]
    return Scene(
        world,
        dice.pick(words.COUNTS[world]),
        dice.pick(words.ATTRIBUTES[world]),
        agent,
        action,
        dice.pick(objects),
        dice.pick(words.PLACES[world]),
    )


def _changed(dice: Dice, scene: Scene) -> Scene:
    """The scene with none to four of its parts drawn anew, its roles exchanged, or itself denied."""
    draws = [_scene(dice, scene.world) for _ in range(dice.pick((0, 1, 1, 2, 2, 3, 3, 4)))]
    result = scene
    for draw in draws:
        part = dice.pick(("count", "attribute", "agent", "action", "object", "place", "action", "agent"))
        if part == "action":
            result = result._replace(action=draw.action, object=draw.object)
        elif part == "object":
            same = [one for one in words.ACTIONS[scene.world][result.action][1] if one != result.agent] or [[""]]
            result = result._replace(object=dice.pick(same))
        elif part != "agent" or draw.agent != result.object:
            result = result._replace(**{part: getattr(draw, part)})
    agents = [agent for group in words.AGENTS[scene.world] for agent in group]
    if result.object in agents and dice.chance(30):
        result = result._replace(agent=result.object, object=result.agent)
    return result._replace(denied=scene.world in ("person", "animal") and dice.chance(12))


def _agreement(one: Scene, other: Scene) -> int:
    """0 to 100: weights of the parts that agree; a related agent or object counts two fifths, a denial costs."""
    if one.world != other.world:
        return 0
    related = {"agent": words.AGENTS[one.world], "object": [objects for _, objects in words.ACTIONS[one.world]]}
    total = 0
    for part, weight in WEIGHTS.items():
        a, b = getattr(one, part), getattr(other, part)
        near = any(a in group and b in group for group in related.get(part, []))
        total += weight * (100 if a == b else 40 if near else 0)
    return max(0, total // 100 - 35 * (one.denied != other.denied))


def _phrase(dice: Dice, scene: Scene, name: str) -> tuple[str, str]:
    """The agent with its count and attribute, and the verb *be* that goes with it."""
    count, attribute = dice.pick(scene.count), dice.pick(scene.attribute)
    if count in ("a", ""):
        described = f"{attribute} {name}".strip()
        return (_article(described) if count else described), words.IS
    return f"{count} {attribute} {words.plural(name)}", words.ARE


def _article(noun: str) -> str:
    return f"{words.AN if noun[:1] in tuple('aeiou') else words.A} {noun}" if noun else ""


def _describe(dice: Dice, scene: Scene) -> str:
    caption = scene.world in ("person", "animal")
    forms = words.CAPTIONS if caption else words.HEADLINES
    usable = (
        ["not", "none"]
        if scene.denied
        else [
            form
            for form in ("active", "active", "passive", "existential", "front", "report")
            if form in forms
            and (form != "passive" or scene.object != [""])
            and (form != "front" or scene.place != [""])
        ]
    )
    name, verb = dice.pick(scene.agent), dice.pick(words.ACTIONS[scene.world][scene.action][0])
    agent, be = _phrase(dice, scene, name)
    thing = dice.pick(scene.object)
    form = dice.pick(usable)
    text = forms[form].format(
        agent=agent,
        bare=name,
        be=words.IS if form == "passive" else be,
        verb=verb[0],
        done=verb[-1],
        object=_article(thing) if caption else thing,
        place=dice.pick(scene.place),
    )
    text = " ".join(text.split())
    return text[0].upper() + text[1:]


def _scene_pair(dice: Dice, worlds: Sequence[str]) -> tuple[Scene, Scene]:
    scene = _scene(dice, dice.pick(worlds))
    return scene, _scene(dice, dice.pick(worlds)) if dice.chance(15) else _changed(dice, scene)


def _graded(dice: Dice, agreement: int) -> int:
    """Tenths of a point, 0 to 50: the agreement with small noise, for 5 % of the rows any grade at all."""
    return dice.below(51) if dice.chance(5) else min(50, max(0, agreement // 2 + dice.below(9) - 4))


def sts_row(dice: Dice) -> tuple[str, str, float]:
    pair = _scene_pair(dice, ("person", "person", "animal", "news", "quarrel"))
    stop = dice.pick((".", ".", "")) if pair[0].world in ("person", "animal") else ""
    one, other = (_describe(dice, scene) + stop for scene in pair)
    return one, other, _graded(dice, _agreement(*pair)) / 10


def sick_row(dice: Dice) -> tuple[str, str, str, float]:
    pair = _scene_pair(dice, ("person", "animal"))
    agreement = _agreement(*pair)
    label = (
        "CONTRADICTION"
        if pair[0].denied != pair[1].denied and agreement >= 40
        else ("ENTAILMENT" if agreement >= 90 else "NEUTRAL")
    )
    score = (50 + 4 * _graded(dice, agreement)) // 5
    return _describe(dice, pair[0]), _describe(dice, pair[1]), label, score / 10
