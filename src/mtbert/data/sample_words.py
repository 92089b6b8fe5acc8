"""Words and sentence patterns of the embedded corpus: everything that its files can hold.

``|`` parts alternatives, ``/`` parts synonyms (names of one thing), ``{a}`` is a gap.
"""

from __future__ import annotations


def _options(text: str) -> list[str]:
    return [" ".join(part.split()) for part in text.split("|")]


def _concepts(text: str) -> list[list[str]]:
    return [option.split("/") for option in _options(text)]


def _meanings(text: str) -> list[list[str]]:
    return [_options(line) for line in text.strip().splitlines()]


def _actions(text: str) -> list[tuple[list[list[str]], list[list[str]]]]:
    """Lines ``doing:done / synonym:synonym = object | object`` -> (names of the action, its objects)."""
    rows = [line.partition("=") for line in text.strip().splitlines()]
    return [
        ([form.split(":") for form in names.strip().split("/")], _concepts(objects) if objects else [])
        for names, _, objects in rows
    ]


# Film remarks. Keys are strengths: -2 awful … +2 superb.
ADJECTIVES = {
    2: _options("""superb | magnificent | dazzling | exhilarating | masterful | breathtaking | brilliant | stunning
        | unforgettable | wonderful | extraordinary | gorgeous | riveting | flawless | sublime | electrifying"""),
    1: _options("""pleasant | likable | charming | decent | engaging | amusing | solid | watchable | warm | lively
        | agreeable | clever | sweet | competent | graceful | enjoyable | appealing | neat"""),
    -1: _options("""uneven | slow | thin | predictable | bland | forgettable | clumsy | stale | muddled | flat
        | clichéd | routine | shallow | repetitive | overlong | sluggish | contrived | patchy | unremarkable"""),
    -2: _options("""awful | dreadful | unbearable | atrocious | insufferable | dismal | abysmal | wretched | ghastly
        | horrible | disastrous | excruciating | pathetic | appalling | worthless | idiotic"""),
}
PREDICATES = {
    2: _options("""takes your breath away | stays with you for days | is a joy from start to finish
        | deserves every prize going | leaves you speechless | could not be better | reaches true greatness
        | is among the best of the year"""),
    1: _options("""keeps you watching | raises a smile | does its job well | holds together nicely
        | has its moments | wins you over in time | is worth the ticket | goes down easily"""),
    -1: _options("""drags in the middle | runs out of ideas | never quite takes off | leaves little behind
        | feels like homework | loses its way | could use some sparkle | wears thin before the end"""),
    -2: _options("""is a chore to sit through | insults its audience | made me want to walk out
        | fails on every level | is beyond saving | could not be worse | is a waste of two hours
        | is among the worst of the year"""),
}
MODIFIERS = {
    "plain": [""],
    "intensify": _options("truly | deeply | utterly | remarkably | really | simply | absolutely"),
    "diminish": _options("fairly | somewhat | rather | mostly | a little | kind of | at times"),
    "negate": _options("not | n't | hardly | far from | by no means | not exactly"),
    "insist": _options("never less than | nothing short of | nothing if not"),
    "reverse": _options("anything but | the opposite of"),
}
ASPECTS = _options("""the acting | the script | the photography | the score | the pacing | the dialogue
    | the direction | the ending | the lead performance | the supporting cast | the humour | the story
    | the opening | the central romance | the camera work | the editing | the film | the movie | this one""")
GENRES = _options("""thriller | comedy | drama | romance | documentary | western | biopic | musical | fable
    | sequel | remake | caper | mystery | satire""")
HEROES = _options("""a retired fisherman | two sisters | a young teacher | an honest thief | a lonely clerk
    | a widowed farmer | a team of divers | a shy piano tuner | a village doctor | a truck driver
    | three old soldiers | a runaway bride""")
DEEDS = _concepts("""returns to the coast/return to the coast | inherits a hotel/inherit a hotel
    | looks for a lost dog/look for a lost dog | crosses the desert/cross the desert | opens a bakery/open a bakery
    | plans one last robbery/plan one last robbery | moves to the city/move to the city
    | finds a box of letters/find a box of letters | learns to sail/learn to sail
    | hides from the police/hide from the police""")  # of one hero/of several
PLURAL_HEROES = ("two sisters", "three old soldiers")
SETTINGS = _options("""Lisbon | a mining town | the winter of 1952 | a border village | Glasgow
    | the last days of the war | a fishing port | a boarding school""")
FACTS = _options("""{film} follows {hero} who {deed} | set in {setting} , {film} is about {hero} | {hero} {deed}
    in this {genre} | it was shot in {setting} | this {genre} takes place in {setting} | {film} is a {genre}
    about {hero} who {deed}""")
FILMS = _options("the film | the movie | the picture | the story")
JOINTS = {
    "and": _options("{a} and {b} | {a} , and {b} | {a} ; {b}"),
    "but": _options("{a} , but {b} | although {a} , {b} | {a} , yet {b} | {b} , even if {a} | {a} ; still , {b}"),
    "fact": _options("{a} , and {b} | {a} ; {b} | {a} , though what counts is that {b}"),
    "hearsay": _options("""critics call it {word} , but {b} | my friends found it {word} ; for me {b}
        | the trailer looks {word} , yet {b} | the first part was {word} ; here {b}"""),
    "wish": _options("""with a better script it might have been {word} | it wants so much to be {word}
        | it could have been {word} in other hands | the book was {word} ; where did all that go"""),
}
REVIEW_PAUSES = _options("<br /><br /> | ... | so : | well , |  |  |  |  | ")
REVIEW_QUOTES = _options('''a man behind me said " at last " when it was over | I saw it on cable under the title
    " {genre} "''')
STOPS = [" .", " .", " .", "", " !"]

# Questions. Of each kind the meanings, one a line, each with its wordings; gaps {a} and {b} take different fillers.
QUESTIONS = {
    "skill": _meanings("""
How can I learn {a}? | How do I get started with {a}? | I want to pick up {a}. Where do I begin?
How long does it take to learn {a}? | How much time do I need to get good at {a}?
Why is {a} so hard to learn? | What makes {a} difficult for beginners?
Is it worth learning {a}? | Should I spend my time on {a}? | Is {a} still useful?
How can I teach {a}? | How do I become a teacher of {a}? | What is the best way to teach others {a}?
"""),
    "city": _meanings("""
What are the best places to visit in {a}? | Which sights are a must in {a}? | What is worth seeing in {a}?
How expensive is it to live in {a}? | What is the cost of living in {a}? | How much money do I need in {a}?
Where can I find cheap hotels in {a}? | Where should I sleep in {a} on a small budget?
Is it safe to walk in {a} at night? | How dangerous is {a} after dark?
Where do people in {a} go for dinner? | What are some good restaurants in {a}?
"""),
    "thing": _meanings("""
How do I clean {a}? | How can I get the dirt off {a}?
How do I repair {a}? | How can I fix {a} that is broken?
Where can I buy {a}? | Which shop sells {a} at a good price? | What is the best place to get {a}?
Where can I sell {a}? | How do I find a buyer for {a}?
What should I check before buying {a}? | What matters when choosing {a}?
"""),
    "pet": _meanings("""
What should I feed {a}? | What does {a} eat? | Which food is good for {a}?
How long does {a} live? | What is the life span of {a}? | How old can {a} get?
How do I train {a}? | How can I teach {a} to obey?
Why does {a} bite? | Why do I keep getting bitten by {a}?
How do I stop {a} from making noise? | How can I keep {a} quiet at night?
"""),
    "route": _meanings("""
How do I get from {a} to {b}? | What is the best way to travel from {a} to {b}?
How long is the train ride from {a} to {b}? | How many hours does the train from {a} to {b} take?
Should I move from {a} to {b}? | Is it wise to leave {a} and settle in {b}?
"""),
    "swap": _meanings("""
Can I use {a} instead of {b}? | Is it fine to replace {b} with {a}? | I have no {b} at home. Will {a} do?
Is {a} healthier than {b}? | Should I eat {a} rather than {b}? | Is {b} less healthy than {a}?
"""),
    "family": _meanings("""
How do I tell my {a} that my {b} lied? | How can I let my {a} know that my {b} is a liar?
Why does my {a} ignore my {b}? | Why is my {b} ignored by my {a}?
How can I get my {a} to forgive my {b}? | What can I do so that my {b} is forgiven by my {a}?
"""),
    "compare": _meanings("""
What is the difference between {a} and {b}? | How do {a} and {b} differ?
Can {a} and {b} be eaten together? | Is it fine to mix {a} and {b}? | Do {a} and {b} go well together?
"""),
    "number": _meanings("""
Can I lose {a} kilos in {b} weeks? | How can I drop {a} kilos within {b} weeks?
I am {b} years old. Are {a} books a year enough? | Should someone aged {b} read {a} books each year?
How do I save {a} thousand in {b} months? | I need {a} thousand in {b} months. How do I put that aside?
"""),
    "word": _meanings("""
What does "{a}" mean? | What is the meaning of "{a}"? | What do people want to say with "{a}"?
Where does "{a}" come from? | What is the origin of "{a}"?
Is it rude to say "{a}"? | Can I say "{a}" to my boss?
"""),
}
# Of each kind, how many in a hundred are asked twice.
DUPLICATES = {"skill": 80, "city": 15, "thing": 65, "pet": 80, "route": 10, "swap": 10, "family": 10, "compare": 75}
DUPLICATES |= {"number": 10, "word": 15}
_CITIES = _concepts("""Rome | Paris | Oslo | Cairo | Lima | Tokyo | Delhi/New Delhi | Boston | Vienna | Prague
    | Nairobi | Seoul | New York/New York City | Madrid | Dublin | Sydney | São Paulo""")
_FOODS = _concepts("""butter | olive oil | honey | sugar | milk | yoghurt/yogurt | rice | pasta/spaghetti | bread
    | corn/maize | cheese | tofu | lemon juice | vinegar""")
FILLERS = {
    "skill": _concepts("""the guitar/guitar playing | the piano | chess | Spanish | Japanese | English
        | programming/coding | swimming | cooking | drawing | public speaking | mathematics/maths | photography
        | sailing | knitting | driving"""),
    "city": _CITIES,
    "route": _CITIES,
    "swap": _FOODS,
    "compare": _FOODS,
    "thing": _concepts("""a phone/a mobile phone/a cell phone | a laptop/a notebook computer | a camera
        | a bicycle/a bike | a used car/a second hand car | a sofa/a couch | a washing machine | a watch
        | a leather jacket | a television/a TV | a carpet/a rug | a piano | a coffee machine | a tent"""),
    "pet": _concepts("""a puppy/a young dog | a cat | a kitten/a young cat | a parrot | a rabbit/a bunny | a hamster
        | a horse | a turtle/a tortoise | a goat | a monkey | a snake | a grown dog"""),
    "family": _concepts("""mother/mum | father/dad | boss/manager | wife | husband | sister | brother | best friend
        | neighbour | teacher | roommate/flatmate"""),
    "word": _concepts("""break a leg | a piece of cake | spill the beans | once in a blue moon | hit the sack
        | under the weather | cold feet | the last straw | on thin ice | by the book"""),
    "number": _concepts("3/three | 5/five | 6 | 8/eight | 9 | 10/ten | 12/twelve | 15 | 18 | 20/twenty | 25 | 30 | 40"),
}
ORDERED = ("route", "swap", "family", "number")  # exchanging the fillers asks something else
SYMMETRIC = ("compare",)  # exchanging them asks the same
ASIDES = _options("""I am new to this. | Please help. | Serious question: | I have wondered for years. | My friend asks:
    | I am 25 and live in a small town. | Any ideas? | Just curious.""")

# Scenes: captions of people and animals, and headlines. One list a group of related things.
AGENTS = {
    "person": [
        _concepts("man/guy/gentleman | woman/lady"),
        _concepts("boy | girl | child/kid"),
        _concepts("cook/chef | soldier | clown"),
    ],
    "animal": [_concepts("dog/hound | puppy"), _concepts("cat | kitten"), _concepts("horse/pony | monkey | goat")],
    "news": [
        _concepts("Norway | Sweden | Finland"),
        _concepts("Chile | Peru | Brazil"),
        _concepts("Kenya | Ghana | Egypt"),
        _concepts("UN/United Nations | EU/European Union"),
    ],
}
AGENTS["quarrel"] = AGENTS["news"]
ACTIONS = {
    "person": _actions("""
playing:played = guitar | violin | piano/keyboard | flute | trumpet
slicing:sliced/cutting:cut/chopping:chopped = tomato | onion | potato | carrot | melon
riding:ridden = bicycle/bike | motorcycle/motorbike | horse/pony | skateboard
carrying:carried/holding:held = box/crate | bag/sack | ladder | baby/infant
washing:washed/cleaning:cleaned = car/automobile | window | plate/dish | dog/hound
reading:read/studying:studied = book | letter | newspaper/paper | map
throwing:thrown/tossing:tossed = ball | stick/branch | stone/rock
chasing:chased/running after:run after = dog/hound | cat | boy | girl
drawing:drawn/sketching:sketched = house | tree | face
running/jogging
sleeping/napping
dancing
singing
swimming
jumping/leaping
"""),
    "animal": _actions("""
chasing:chased/running after:run after = dog/hound | cat | kitten | puppy | goat | monkey
biting:bitten/chewing:chewed = stick/branch | shoe | bone
licking:licked = plate/dish | kitten | puppy | hand
pushing:pushed = ball | box/crate | door
running/racing
sleeping/napping
swimming
jumping/leaping
eating/feeding
"""),
    "news": _actions("""
announces:announced/unveils:unveiled = budget/spending plan | tax cut | election/vote
rejects:rejected/turns down:turned down = peace deal/peace agreement | trade deal/trade agreement | climate plan
delays:delayed/postpones:postponed = election/vote | space launch/rocket launch | peace talks/peace negotiations
backs:backed/supports:supported = climate plan | ceasefire/truce | trade deal/trade agreement
resumes:resumed/restarts:restarted = peace talks/peace negotiations | gas exports | oil drilling
bans:banned/outlaws:outlawed = plastic bags | gas exports | night flights
"""),
    "quarrel": _actions("""
accuses:accused/blames:blamed = Norway | Sweden | Chile | Peru | Kenya | Egypt
praises:praised/hails:hailed = Finland | Sweden | Brazil | Peru | Ghana
sues:sued/takes to court:taken to court = Norway | Chile | Brazil | Kenya | Ghana
"""),
}
PLACES = {
    "person": _concepts(""" | | in the park | on the beach/at the seaside | on a stage | in the kitchen
        | by a lake/near a lake | in the street/on the road | in the snow | in the garden/in the yard"""),
    "news": _concepts(""" | | on Monday | on Friday | next week/in a week | after long debate/after lengthy debate"""),
    "quarrel": _concepts(
        """ | over fishing rights | over stolen art | over border clash/over border fighting | at summit"""
    ),
}
PLACES["animal"] = PLACES["person"]
ATTRIBUTES = {
    "person": _concepts(" | | young | old/elderly | tall | smiling"),
    "animal": _concepts(" | | brown | black | white | small/little"),
    "news": [[""]],
    "quarrel": [[""]],
}
NUMBERS = {
    "person": _concepts("a | a | a | two | three | several"),
    "animal": _concepts("a | a | a | two | three | several"),
    "news": [[""]],
    "quarrel": [[""]],
}
# How many parts of a scene are drawn anew for its counterpart: headlines agree less often than captions.
CHANGES = {"person": (0, 1, 2, 3), "animal": (0, 1, 1, 2), "news": (1, 3, 3, 4), "quarrel": (3, 4, 5, 6)}
PLURALS = {
    "man": "men",
    "gentleman": "gentlemen",
    "woman": "women",
    "lady": "ladies",
    "child": "children",
    "puppy": "puppies",
    "pony": "ponies",
}
CAPTIONS = {
    "active": "{agent} {be} {verb} {object} {place}",
    "passive": "{object} is being {done} by {agent} {place}",
    "existential": "there {be} {agent} {verb} {object} {place}",
    "front": "{place} , {agent} {be} {verb} {object}",
    "not": "{agent} {be} not {verb} {object} {place}",
    "none": "there is no {bare} {verb} {object} {place}",
}
HEADLINES = {
    "active": "{bare} {verb} {object} {place}",
    "passive": "{object} {done} by {bare} {place}",
    "report": "report : {bare} {verb} {object} {place}",
}
IS, ARE, A, AN = "is", "are", "a", "an"


def plural(name: str) -> str:
    return PLURALS.get(name, f"{name}s")


# Said in scenes with several agents; `vocabulary` of the sample reads every name in capitals here.
AGENTS_PLURAL = [
    plural(name) for world in ("person", "animal") for group in AGENTS[world] for names in group for name in names
]
