"""Scenes of the embedded corpus, who does what to what and where: STS's and SICK's pairs.

The grade of a pair follows from how far its two scenes agree, whatever words describe them; 5 % of the grades are
drawn at random.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from mtbert.data import sample_words as words
from mtbert.data.sample_dice import Dice

WEIGHTS = {"number": 5, "attribute": 8, "agent": 26, "action": 30, "object": 19, "place": 12}  # of a scene's parts
CAPTIONS = ("person", "animal")  # the worlds described in whole sentences; the others make headlines
WORLDS = (*CAPTIONS, "person", "news", "quarrel")


class Scene(NamedTuple):
    """Each part is a list of synonyms; ``action`` is the row of the table of actions."""

    world: str
    number: list[str]
    attribute: list[str]
    agent: list[str]
    action: int
    object: list[str]
    place: list[str]
    denied: bool = False


def sts_row(dice: Dice) -> tuple[str, str, float]:
    pair = _scene_pair(dice, WORLDS)
    stop = dice.pick((".", ".", "")) if pair[0].world in CAPTIONS else ""
    one, other = (_describe(dice, scene) + stop for scene in pair)
    return one, other, _grade(dice, _agreement(*pair)) / 10


def sick_row(dice: Dice) -> tuple[str, str, str, float]:
    """Two sentences, the entailment label, the relatedness 1..5."""
    one, other = _scene_pair(dice, CAPTIONS)
    agreement = _agreement(one, other)
    label = "ENTAILMENT" if agreement >= 90 else "NEUTRAL"
    if one.denied != other.denied and agreement >= 40:
        label = "CONTRADICTION"
    relatedness = (50 + 4 * _grade(dice, agreement)) // 5
    return _describe(dice, one), _describe(dice, other), label, relatedness / 10


def _scene_pair(dice: Dice, worlds: Sequence[str]) -> tuple[Scene, Scene]:
    scene = _scene(dice, dice.pick(worlds))
    return scene, _scene(dice, dice.pick(worlds)) if dice.chance(15) else _changed(dice, scene)


def _grade(dice: Dice, agreement: int) -> int:
    """Tenths of a point, 0 to 50."""
    return dice.below(51) if dice.chance(5) else min(50, max(0, agreement // 2 + dice.below(9) - 4))


def _scene(dice: Dice, world: str) -> Scene:
    agent = dice.pick(dice.pick(words.AGENTS[world]))
    action = dice.below(len(words.ACTIONS[world]))
    return Scene(
        world,
        dice.pick(words.NUMBERS[world]),
        dice.pick(words.ATTRIBUTES[world]),
        agent,
        action,
        dice.pick(_objects(world, action, agent)),
        dice.pick(words.PLACES[world]),
    )


def _objects(world: str, action: int, agent: list[str]) -> list[list[str]]:
    """What may be the object of an action: nobody's own self, and nothing where the verb takes none."""
    return [one for one in words.ACTIONS[world][action][1] if one != agent] or [[""]]


def _changed(dice: Dice, scene: Scene) -> Scene:
    """The scene with some of its parts drawn anew, perhaps its roles exchanged, perhaps itself denied."""
    result = scene
    for _ in range(dice.pick(words.CHANGES[scene.world])):
        result = _with_part(dice, result, _scene(dice, scene.world))
    agents = [agent for group in words.AGENTS[scene.world] for agent in group]
    if result.object in agents and dice.chance(30):
        result = result._replace(agent=result.object, object=result.agent)
    return result._replace(denied=scene.world in CAPTIONS and dice.chance(12))


def _with_part(dice: Dice, scene: Scene, source: Scene) -> Scene:
    """The scene with one part of ``source``; a new action brings its object along."""
    part = dice.pick(("number", "attribute", "agent", "action", "object", "place", "action", "agent"))
    if part == "object":
        return scene._replace(object=dice.pick(_objects(scene.world, scene.action, scene.agent)))
    if part == "action":
        return scene._replace(action=source.action, object=dice.pick(_objects(scene.world, source.action, scene.agent)))
    if part == "agent" and source.agent == scene.object:
        return scene
    fields: dict[str, Any] = {part: getattr(source, part)}
    return scene._replace(**fields)


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


def _describe(dice: Dice, scene: Scene) -> str:
    caption = scene.world in CAPTIONS
    form = dice.pick(_forms(scene))
    name, verb = dice.pick(scene.agent), dice.pick(words.ACTIONS[scene.world][scene.action][0])
    agent, be = _phrase(dice, scene, name)
    thing = dice.pick(scene.object)
    text = (words.CAPTIONS if caption else words.HEADLINES)[form].format(
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


def _forms(scene: Scene) -> list[str]:
    """The sentence patterns that fit: no passive without an object, no place in front without a place."""
    if scene.denied:
        return ["not", "none"]
    forms = ["active", "active", "existential", "front"] if scene.world in CAPTIONS else ["active", "active", "report"]
    if scene.place == [""] and "front" in forms:
        forms.remove("front")
    return forms if scene.object == [""] else [*forms, "passive"]


def _phrase(dice: Dice, scene: Scene, name: str) -> tuple[str, str]:
    """The agent with its number and attribute, and the verb *be* that goes with it."""
    number, attribute = dice.pick(scene.number), dice.pick(scene.attribute)
    if number in ("a", ""):
        described = f"{attribute} {name}".strip()
        return (_article(described) if number else described), words.IS
    return f"{number} {attribute} {words.plural(name)}", words.ARE


def _article(noun: str) -> str:
    return f"{words.AN if noun[:1] in tuple('aeiou') else words.A} {noun}" if noun else ""
