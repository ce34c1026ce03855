"""The grammar of the demo data: facts with their questions, and answers of every quality class.

A *fact* is one thing that can be asked, in several wordings. An answer is a list of sentences, and its class says which:

===========  ========================================================================
best         the right answer, a detail, and a courtesy
full         the right answer and a detail
polite       the right answer and a courtesy
plain        the right answer
curt         the bare fact, in two or three words
repeat       the right answer, said again and again
rude         the bare fact, with an insult
vague        no answer, on the topic
insult       no answer, only insults
off_topic    a true answer to another question, often courteous, often after a change of subject
wrong        a false answer, often called a guess, otherwise in the form of a full, polite or plain one
===========  ========================================================================

`QUALITY` is the gold score of each class: the sum of a few dimensions (truth, relevance, completeness, courtesy,
concision), so that no single word decides it. A wrong or off-topic answer may be as courteous as the best one.
"""

from dataclasses import dataclass, field

import content as c

# Points of each dimension.
RIGHT, WRONG = 2.0, -1.5
ON_TOPIC, DETAIL, COURTEOUS = 0.5, 1.0, 0.5
RUDENESS, REPETITION, CURT = -1.5, -1.5, -0.5

QUALITY = {
    "best": RIGHT + ON_TOPIC + DETAIL + COURTEOUS,
    "full": RIGHT + ON_TOPIC + DETAIL,
    "polite": RIGHT + ON_TOPIC + COURTEOUS,
    "plain": RIGHT + ON_TOPIC,
    "curt": RIGHT + ON_TOPIC + CURT,
    "repeat": RIGHT + ON_TOPIC + REPETITION,
    "rude": RIGHT + ON_TOPIC + CURT + RUDENESS,
    "vague": ON_TOPIC,
    "off_topic": 0.0,
    "wrong": WRONG + ON_TOPIC,
    "insult": ON_TOPIC + RUDENESS,
}


@dataclass
class Fact:
    """Something that can be asked, and what is true of it."""

    topic: str
    subject: str
    questions: list
    right: str
    short: str
    detail: str
    wrong: list = field(default_factory=list)
    key: str = ""


# Topics whose detail stays true beside a false answer.
DETAIL_STANDS_ALONE = {"food", "home", "sound", "young", "use", "tool", "dish", "job", "place"}


def cap(text):
    return text[0].upper() + text[1:]


def article(noun):
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def _others(rows, value, group):
    """For each row, the values of rows in another group that differ from its own."""
    return {
        i: sorted({value(o) for o in rows if group(o) != group(r) and value(o) != value(r)})
        for i, r in enumerate(rows)
    }


def _alike(a, b):
    return a == b or any({a, b} <= group for group in c.ALIKE)


def animals():
    rows = [(n, *v) for n, v in c.ANIMALS.items()]
    for name, food, eater, home, habitat, sound, young in rows:
        a = article(name)
        yield Fact(
            "food", a,
            [f"What does {a} eat?", f"Tell me what {a} eats.", f"What food does {a} like?", f"Do you know what {a} eats?"],
            f"{cap(a)} eats {food}.", f"It eats {food}.", f"It lives {home}.",
            [f"{cap(a)} eats {w}." for w in c.NOT_FOOD[eater] if w != food],
        )
        yield Fact(
            "home", a,
            [f"Where does {a} live?", f"Tell me where {a} lives.", f"Where can I find {a}?", f"Do you know where {a} lives?"],
            f"{cap(a)} lives {home}.", f"{cap(home)}.", f"It eats {food}.",
            [f"{cap(a)} lives {w}." for w in c.NOT_HOME[habitat]],
        )
        if sound:
            sounds = sorted({r[5] for r in rows if r[5] and not _alike(r[5], sound)})
            yield Fact(
                "sound", a,
                [f"What sound does {a} make?", f"Tell me the sound of {a}.", f"How does {a} sound?", f"Do you know the sound of {a}?"],
                f"The sound of {a} is a {sound}.", f"A {sound}.", f"You can hear it {home}.",
                [f"The sound of {a} is a {w}." for w in sounds],
            )
        if young:
            youngs = sorted({r[6] for r in rows if r[6] and not _alike(r[6], young)})
            yield Fact(
                "young", a,
                [f"What is a baby {name} called?", f"Tell me the name of a baby {name}.", f"What do you call a baby {name}?",
                 f"Do you know what a baby {name} is called?"],
                f"A baby {name} is called {article(young)}.", f"{cap(article(young))}.", f"It grows up {home}.",
                [f"A baby {name} is called {article(w)}." for w in youngs],
            )


def colours():
    things = list(c.COLOURS.items())
    for i, (thing, colour) in enumerate(things):
        alike = [t for t, k in things if k == colour]
        other = alike[(alike.index(thing) + 1) % len(alike)]
        yield Fact(
            "colour", thing,
            [f"What colour is {thing}?", f"Tell me the colour of {thing}.", f"Which colour does {thing} have?",
             f"Do you know the colour of {thing}?"],
            f"The colour of {thing} is {colour}.", f"It is {colour}.", f"{cap(other)} is {colour} too.",
            [f"The colour of {thing} is {w}." for w in sorted(set(c.COLOURS.values()) - {colour})],
        )


def opposites():
    rows = [(a, b, e, g) for a, b, e, g in c.OPPOSITES] + [(b, a, e, g) for a, b, e, g in c.OPPOSITES]
    wrong = _others(rows, lambda r: r[1], lambda r: r[3])
    for i, (word, opposite, example, _) in enumerate(rows):
        yield Fact(
            "opposite", f"the word {word}",
            [f"What is the opposite of {word}?", f"Tell me the opposite of {word}.", f"Which word is the opposite of {word}?",
             f"Do you know the opposite of {word}?"],
            f"The opposite of {word} is {opposite}.", f"It is {opposite}.", example,
            [f"The opposite of {word} is {w}." for w in wrong[i]],
        )


def sums():
    names = dict(enumerate(c.NUMBERS, start=1))
    for a in range(1, 4):
        for b in range(1, 4):
            x, y, total = names[a], names[b], names[a + b]
            yield Fact(
                "sum", f"{x} and {y}",
                [f"What is {x} plus {y}?", f"Tell me the sum of {x} and {y}.", f"How much is {x} and {y}?",
                 f"Do you know the sum of {x} and {y}?"],
                f"The sum of {x} and {y} is {total}.", f"It is {total}.", f"Take {y} away and {x} is left.",
                [f"The sum of {x} and {y} is {names[w]}." for w in range(2, 10) if w != a + b],
            )


def _neighbours(kind, names, steps, cyclic):
    """What comes after (step 1) or before (step -1) each name of an ordered list."""
    size = len(names)
    for i, name in enumerate(names):
        for step in steps:
            if not cyclic and not 0 <= i + 2 * step < size:
                continue
            word = "after" if step == 1 else "before"
            value, beyond = names[(i + step) % size], names[(i + 2 * step) % size]
            wrong = [w for w in names if w not in (value, name)]
            yield Fact(
                kind, f"the {kind} {name}" if kind == "number" else name,
                [f"Which {kind} comes {word} {name}?", f"Tell me the {kind} {word} {name}.", f"What is the {kind} {word} {name}?",
                 f"Do you know the {kind} {word} {name}?"],
                f"The {kind} {word} {name} is {value}.", f"It is {value}.",
                f"Then comes {beyond}." if step == 1 else f"Before it comes {beyond}.",
                [f"The {kind} {word} {name} is {w}." for w in wrong],
            )


def calendar():
    yield from _neighbours("day", c.DAYS, (1, -1), True)
    yield from _neighbours("number", c.NUMBERS, (1,), False)


def parts():
    for whole, part, number, detail in c.PARTS:
        yield Fact(
            "count", whole,
            [f"How many {part} does {whole} have?", f"Tell me how many {part} {whole} has.", f"Count the {part} of {whole}.",
             f"Do you know how many {part} {whole} has?"],
            f"{cap(whole)} has {number} {part}.", f"It has {number}.", detail,
            [f"{cap(whole)} has {w} {part}." for w in ("two", "three", "four", "five", "six", "seven", "eight") if w != number],
        )


def tools():
    jobs = _others(c.TOOLS, lambda r: r[1], lambda r: r[3])
    names = _others(c.TOOLS, lambda r: r[0], lambda r: r[3])
    for i, (tool, job, advice, _) in enumerate(c.TOOLS):
        yield Fact(
            "use", tool,
            [f"What is {tool} for?", f"Tell me the use of {tool}.", f"What can I do with {tool}?", f"Do you know the use of {tool}?"],
            f"{cap(tool)} is used to {job}.", f"To {job}.", advice,
            [f"{cap(tool)} is used to {w}." for w in jobs[i]],
        )
        yield Fact(
            "tool", tool,
            [f"What do I need to {job}?", f"Tell me how to {job}.", f"What can I use to {job}?", f"Do you know how to {job}?"],
            f"You need {tool} to {job}.", f"{cap(tool)}.", advice,
            [f"You need {w} to {job}." for w in names[i]],
        )


def dishes():
    for dish, first, second, advice in c.DISHES:
        yield Fact(
            "dish", dish,
            [f"How do I make {dish}?", f"Tell me how to make {dish}.", f"What is a good way to make {dish}?",
             f"Do you know how to make {dish}?"],
            f"To make {dish}, {first} and {second}.", f"{cap(first)}.", advice,
            [f"To make {dish}, {d[1]} and {d[2]}." for d in c.DISHES if d[1] != first],
        )


def weather():
    advice = {when: f"{first} and {second}" for when, first, second, _, _ in c.WEATHER}
    for when, first, second, reason, unfit in c.WEATHER:
        yield Fact(
            "weather", "the weather",
            [f"What should I do when {when}?", f"Tell me what to do when {when}.", f"What is best when {when}?",
             f"Do you know what to do when {when}?"],
            f"When {when}, {advice[when]}.", f"{cap(first)}.", reason,
            [f"When {when}, {advice[w]}." for w in unfit],
        )


def jobs():
    does = _others(c.JOBS, lambda r: r[1], lambda r: r[3])
    for i, (job, work, place, _) in enumerate(c.JOBS):
        a = article(job)
        yield Fact(
            "job", a,
            [f"What does {a} do?", f"Tell me what {a} does.", f"What is the work of {a}?", f"Do you know what {a} does?"],
            f"{cap(a)} {work}.", f"Someone who {work}.", f"You can meet one {place}.",
            [f"{cap(a)} {w}." for w in does[i]],
        )
        yield Fact(
            "place", a,
            [f"Where does {a} work?", f"Tell me where {a} works.", f"Where can I meet {a}?", f"Do you know where {a} works?"],
            f"{cap(a)} works {place}.", f"{cap(place)}.", f"{cap(a)} {work}.",
            [f"{cap(a)} works {w}." for w in c.NOT_WORKPLACE if w != place],
        )


def materials():
    wrong = _others(c.MATERIALS, lambda r: r[1], lambda r: r[2])
    for i, (thing, stuff, _, detail) in enumerate(c.MATERIALS):
        yield Fact(
            "material", thing,
            [f"What is {thing} made from?", f"Tell me what {thing} is made from.", f"What do I need for making {thing}?",
             f"Do you know what {thing} is made from?"],
            f"{cap(thing)} is made from {stuff}.", f"From {stuff}.", detail,
            [f"{cap(thing)} is made from {w}." for w in wrong[i]],
        )


def stores():
    group_of = {place: group for _, place, group, _ in c.STORES}
    for thing, place, group, reason in c.STORES:
        yield Fact(
            "store", thing,
            [f"Where do I keep {thing}?", f"Tell me where to keep {thing}.", f"Where should I put {thing}?",
             f"Do you know where to keep {thing}?"],
            f"You can keep {thing} {place}.", f"{cap(place)}.", reason,
            [f"You can keep {thing} {w}." for w in c.NOT_STORE if group_of.get(w) != group],
        )


def small_talk():
    for questions, answer, short, detail in c.SMALL_TALK:
        yield Fact("talk", "", questions, answer, short, detail)


def all_facts():
    facts = []
    for source in (animals, colours, opposites, sums, calendar, parts, tools, dishes, weather, jobs, materials, stores, small_talk):
        facts.extend(source())
    for fact in facts:
        fact.key = f"{fact.topic}: {fact.right}"
        if fact.topic != "talk":
            wish = next(q for q in fact.questions if q.startswith("Tell me ")).removeprefix("Tell me ")
            fact.questions += [f"Please tell me {wish}", f"I would like to know {wish}"]
        assert fact.right not in fact.wrong, fact
    assert len({f.key for f in facts}) == len(facts)
    return facts


# Share of the false and of the off-topic answers that can be told by their words. The others look like good answers: only
# who knows the fact, or reads the question, can tell.
ANNOUNCED = 0.65

# Words in a repeated answer, so that it fits the model's window.
LONGEST_REPEAT = 18


# How the classes are put into words. Every function returns the sentences of one answer.

def _courteous(rng, sentences):
    if rng.random() < 0.5:
        return [rng.choice(c.COURTESY_BEFORE), *sentences]
    return [*sentences, rng.choice(c.COURTESY_AFTER)]


def _some(rng, sentences, count):
    return rng.sample(sentences, count)


def answer(kind, fact, rng, facts):
    """An answer of class `kind` to the question of `fact`, or None where the class does not apply."""
    if kind == "best":
        out = _courteous(rng, [fact.right, fact.detail])
    elif kind == "full":
        out = [fact.right, fact.detail]
    elif kind == "polite":
        out = _courteous(rng, [fact.right])
    elif kind == "plain":
        out = [fact.right]
    elif kind == "curt":
        out = [fact.short]
    elif kind == "repeat":
        out = rng.choice([[fact.right] * 3, [fact.right, fact.short, fact.right], [fact.short] * 3])
        if len(" ".join(out).split()) > LONGEST_REPEAT:
            out = [fact.short] * 3
    elif kind == "rude":
        out = rng.choice([[*_some(rng, c.RUDE, 1), fact.short], [fact.short, *_some(rng, c.RUDE, 1)]])
    elif kind == "vague":
        lead = f"There is a lot to say about {fact.subject}."
        if fact.subject and rng.random() < 0.5:
            out = [lead, *_some(rng, c.VAGUE, 1)]
        else:
            out = _some(rng, c.VAGUE, rng.choice([1, 2]))
    elif kind == "insult":
        out = _some(rng, c.RUDE, rng.choice([1, 2]))
    elif kind == "off_topic":
        other = rng.choice([f for f in facts if f.topic not in (fact.topic, "talk", "dish", "weather") and f.subject != fact.subject])
        text = answer(rng.choice(["best", "full", "polite", "plain"]), other, rng, facts)
        out = [rng.choice(c.CHANGE), text] if rng.random() < ANNOUNCED else [text]
    elif kind == "wrong":
        if not fact.wrong:
            return None
        false = rng.choice(fact.wrong)
        if rng.random() < ANNOUNCED:
            guess = rng.choice(c.GUESS)
            return " ".join(rng.choice([[guess, false], [false, guess]]))
        shape = rng.random()
        if shape < 0.35 and fact.topic in DETAIL_STANDS_ALONE:
            out = [false, fact.detail]
        elif shape < 0.6:
            out = [false]
        else:
            out = _courteous(rng, [false])
    else:
        raise ValueError(f"unknown class {kind}")
    return " ".join(out)
