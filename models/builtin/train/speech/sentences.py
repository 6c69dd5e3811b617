"""What is said: spoken numbers, digits and times, and short commands. Lower-case words, no punctuation."""

import random

ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
DAYS = "monday tuesday wednesday thursday friday saturday sunday".split()
ROOMS = "kitchen bedroom bathroom hall garden office garage".split()
PEOPLE = "anna peter maria john mother father".split()
FOOD = "milk bread butter coffee apples eggs sugar rice".split()


def number(n, conjunction=True):
    """`n` below a million in words, with or without an "and" after the hundreds."""
    if n < 20:
        return [ONES[n]]
    if n < 100:
        return [TENS[n // 10 - 2]] + ([ONES[n % 10]] if n % 10 else [])
    if n < 1000:
        rest = (["and"] if conjunction else []) + number(n % 100) if n % 100 else []
        return [ONES[n // 100], "hundred"] + rest
    rest = n % 1000
    small = ["and"] if conjunction and 0 < rest < 100 else []
    return number(n // 1000, conjunction) + ["thousand"] + (small + number(rest, conjunction) if rest else [])


def any_number(rng):
    """One of 0 to 999 999, as many digits being likely."""
    return number(rng.randrange(10 ** rng.choice([1, 2, 2, 3, 3, 4, 5, 6])), rng.random() < 0.5)


def small(rng, least, most):
    return number(rng.randint(least, most))


def digits(rng):
    return [ONES[rng.randrange(10)] for _ in range(rng.randint(2, 8))]


def time(rng):
    hour, half = [ONES[rng.randint(1, 12)]], rng.choice([[], ["in", "the", "morning"], ["in", "the", "evening"]])
    return rng.choice([
        hour + ["o'clock"] + half,
        hour + small(rng, 10, 59) + half,
        ["half", "past"] + hour,
        ["quarter", rng.choice(["past", "to"])] + hour,
        [ONES[rng.choice([5, 10])], "past"] + hour,
        ["twenty", "to"] + hour,
        ["noon"], ["midnight"],
    ])


def pick(rng, text):
    return rng.choice(text.split("|")).split()


def command(rng):
    room, person, day, food = rng.choice(ROOMS), rng.choice(PEOPLE), rng.choice(DAYS), rng.choice(FOOD)
    switch = pick(rng, "on|off")
    return rng.choice([
        lambda: pick(rng, "turn|switch") + switch + ["the", room] + pick(rng, "light|lamp|fan|heater|radio"),
        lambda: pick(rng, "turn|switch") + ["the"] + pick(rng, "light|lamp|fan|heater|radio|music|television") + switch,
        lambda: pick(rng, "open|close|lock") + ["the", room] + pick(rng, "door|window"),
        lambda: pick(rng, "open|close|lock") + ["the"] + pick(rng, "door|window|gate"),
        lambda: ["set", "a", "timer", "for"] + small(rng, 2, 90) + pick(rng, "minutes|seconds|hours"),
        lambda: ["set", "the", "alarm", "for"] + time(rng),
        lambda: ["wake", "me", "at"] + time(rng),
        lambda: ["set", "the", "temperature", "to"] + small(rng, 5, 30) + ["degrees"],
        lambda: ["set", "the", "volume", "to"] + small(rng, 0, 100) + ["percent"],
        lambda: pick(rng, "play|stop|pause") + pick(rng, "the music|the next song|the last song|the radio"),
        lambda: pick(rng, "volume up|volume down|louder please|quieter please"),
        lambda: ["call", person] + pick(rng, "now|please|on " + day + "|"),
        lambda: ["send", "a", "message", "to", person],
        lambda: ["remind", "me", "on", day] + pick(rng, "|morning|evening"),
        lambda: ["add"] + (small(rng, 2, 20) if food in ("apples", "eggs") else []) + [food] + "to the shopping list".split(),
        lambda: pick(rng, "what time is it|what day is it|what is the weather today|will it rain tomorrow|how warm is it"),
        lambda: ["what", "is"] + small(rng, 0, 99) + pick(rng, "plus|minus|times") + small(rng, 0, 99),
        lambda: pick(rng, "yes|no|yes please|no thank you|okay|cancel|help|stop|start|thank you|hello|good morning|good night"),
        lambda: ["go"] + pick(rng, "left|right|forward|back|home|up|down"),
        lambda: pick(rng, "go|turn") + pick(rng, "left|right") + ["and", "stop"],
        lambda: ["move"] + pick(rng, "forward|back") + small(rng, 2, 50) + pick(rng, "steps|meters"),
        lambda: ["read", "message", "number"] + any_number(rng),
        lambda: pick(rng, "call|dial") + digits(rng),
    ])()


def sentence(rng):
    """The words of one utterance."""
    kind = rng.random()
    if kind < 0.25:
        return any_number(rng)
    if kind < 0.4:
        return digits(rng)
    if kind < 0.5:
        return time(rng)
    return command(rng)


def words():
    """Every word that is ever said."""
    rng = random.Random(0)
    return sorted({word for _ in range(40_000) for word in sentence(rng)})
