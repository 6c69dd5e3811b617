"""The voice of the story-teller: turns templates into sentences that refer back correctly.

A template holds  [a|b|]     one of the alternatives (nested; may be empty),
                  <list>     one entry of `words.LISTS`,
                  {h}        the character bound to `h`: name, "the little fox" or a pronoun, as the context allows,
                  {h.he}     a pronoun or another form of it (see `Actor.form`),
                  {o.a}      a form of the thing bound to `o` (see `Thing.form`).
"""

import re

import words as W

CHOICE = re.compile(r"\[([^\[\]]*)\]")
LIST = re.compile(r"<(\w+)>")
SLOT = re.compile(r"\{(\w+)(?:\.(\w+))?\}")
ARTICLE = re.compile(r"\b([Aa]) (?=[aeiouAEIOU]|hon(?:est|our)|hour)(?!uni|one\b|use)")
AFTER_STOP = re.compile(r'((?:^|[.!?] |\." )"?)([a-z])')

# After these a name reads better than a pronoun: "asked Lily", not "asked she".
TAGS = ("said ", "asked ", "answered ", "cried ", "called ", "shouted ", "whispered ", "thought ", "promised ", "wondered ")

PRONOUNS = {"f": dict(he="she", him="her", his="her", hers="hers", self="herself"),
            "m": dict(he="he", him="him", his="his", hers="his", self="himself")}


class Actor:
    """A character: what it is, what it is called and how it moves."""

    def __init__(self, rng, taken, old=False, named=0.85):
        move, kinds = rng.choice([(m, k) for m, k in W.KINDS.items() for _ in range(4 if len(k) > 20 else 3)])
        if not old and rng.random() < 0.22:
            move, kinds = W.CHILD, W.KINDS[W.CHILD]
        self.kind = rng.choice([k for k in kinds if k not in taken])
        taken.add(self.kind)
        self.sex = "f" if self.kind in W.FEMALE or self.kind.endswith("girl") else "m" if self.kind in W.MALE else rng.choice("fm")
        self.moves = W.words(move)
        grown = old or self.kind in W.GROWN
        self.adj = rng.choice(W.ADJ_OLD if grown else W.ADJ_HERO + ["little"] * 25)
        self.name = self._name(rng, taken) if rng.random() < named else None

    def _name(self, rng, taken):
        while True:
            if rng.random() < 0.8:
                name = rng.choice(W.GIRLS if self.sex == "f" else W.BOYS)
            else:
                tails = W.NAME_TAILS_F if self.sex == "f" else W.NAME_TAILS_M
                name = rng.choice(W.NAME_HEADS) + rng.choice(W.NAME_MIDDLES).rstrip("aio") + rng.choice(tails)
            if name not in taken:
                taken.add(name)
                return name

    def form(self, key, rng):
        """`he him his hers self` pronouns; `a` first mention; `an` without name; `the`, `name`, `went`, `kind`."""
        if key in PRONOUNS["f"]:
            return PRONOUNS[self.sex][key]
        if key == "went":
            return rng.choice(self.moves)
        if key == "an":
            return f"a {self.adj} {self.kind}"
        if key == "kind":
            return self.kind
        if key == "adj":
            return f"{self.adj} {self.kind}"
        if key == "the":
            return f"the {self.adj} {self.kind}" if rng.random() < 0.4 else f"the {self.kind}"
        if key == "name":
            return self.name or self.form("the", rng)
        if key == "a":
            if not self.name:
                return self.form("an", rng)
            return rng.choice(["a {0} {1} named {2}", "a {0} {1} called {2}", "a {1} named {2}", "{2} the {1}", "a {0} {1} named {2}",
                               "a {1} called {2}"]).format(self.adj, self.kind, self.name)
        raise KeyError(key)


class Thing:
    """An object that keeps its adjective through the story."""

    def __init__(self, rng, nouns, adjectives=None, plain=0.15):
        self.noun = rng.choice(nouns)
        adjectives = adjectives or W.COLOURS * 2 + W.ADJ_THING
        self.adj = "" if rng.random() < plain else rng.choice(adjectives) + " "

    def form(self, key, rng):
        if key == "a":
            return f"a {self.adj}{self.noun}"
        if key == "bare":
            return f"{self.adj}{self.noun}"
        if key == "noun":
            return self.noun
        if key == "" or key == "the":
            return f"the {self.adj if rng.random() < 0.5 else ''}{self.noun}"
        if key == "my":
            return f"my {self.adj if rng.random() < 0.5 else ''}{self.noun}"
        raise KeyError(key)


class Place:
    """Somewhere to be (`at`) and to go (`to`)."""

    def __init__(self, rng, taken):
        self.noun = rng.choice([p for p in W.PLACES if p not in taken])
        taken.add(self.noun)
        self.adj = "" if " " in self.noun or rng.random() < 0.5 else rng.choice(W.ADJ_PLACE) + " "

    def form(self, key, rng):
        at, to = W.PLACES[self.noun]
        the = f"the {self.adj if rng.random() < 0.4 else ''}{self.noun}"
        if key == "a":
            return f"a {self.adj}{self.noun}"
        if key == "ata":
            return f"{at} a {self.adj}{self.noun}"
        return {"at": f"{at} {the}", "to": f"{to} {the}", "": the, "noun": self.noun}[key]


class Story:
    """A story being told: who and what is in it, and the sentences so far."""

    def __init__(self, rng):
        self.rng, self.taken, self.bound, self.lines = rng, set(), {}, []
        self.focus, self.run = None, 0
        self.begun = False  # whether an opening has already set the time

    # -- the cast
    def actor(self, slot, **kw):
        # Two characters of one sex make pronouns ambiguous; nearly all stories avoid it.
        while True:
            taken = set(self.taken)
            a = Actor(self.rng, taken, **kw)
            if slot == "h" or a.sex != self.bound["h"].sex or self.rng.random() < 0.05:
                break
        self.taken = taken
        self.bound[slot] = a
        return a

    def thing(self, slot, nouns, adjectives=None, **kw):
        fresh = [n for n in nouns if n not in self.taken]
        self.bound[slot] = Thing(self.rng, fresh, adjectives, **kw)
        self.taken.add(self.bound[slot].noun)
        return self.bound[slot]

    def place(self, slot):
        self.bound[slot] = Place(self.rng, self.taken)

    def word(self, slot, entries):
        """Bind plain text, to be used more than once."""
        self.bound[slot] = self.expand(self.rng.choice(entries))

    def maybe(self, p=0.5):
        return self.rng.random() < p

    # -- the telling
    def say(self, *templates):
        """Tell one of the templates."""
        text = self.fill(self.expand(self.rng.choice(templates)))
        text = re.sub(r"\s+", " ", text).strip()
        text = ARTICLE.sub(r"\1n ", text)
        self.lines.append(AFTER_STOP.sub(lambda m: m[1] + m[2].upper(), text))

    def expand(self, text):
        while True:
            new = CHOICE.sub(lambda m: self.rng.choice(m[1].split("|")), text)
            if new == text:
                new = LIST.sub(lambda m: self.rng.choice(W.LISTS[m[1]]), text)
                if new == text:
                    return text
            text = new

    def fill(self, text):
        def slot(m):
            tag = not m[2] and text[:m.start()].endswith(TAGS) and isinstance(self.bound[m[1]], Actor)
            return self.refer(m[1], "name" if tag else m[2] or "")

        return SLOT.sub(slot, text)

    def refer(self, slot, key):
        it = self.bound[slot]
        if isinstance(it, str):
            return it
        if not isinstance(it, Actor):
            return it.form(key, self.rng)
        if key == "":
            key = self._subject(slot, it)
        elif key in ("a", "name", "the", "an"):
            self.focus, self.run = slot, 0
        return it.form(key, self.rng)

    def _subject(self, slot, actor):
        """A pronoun while the character is the one being talked about, and not for ever."""
        if self.focus == slot and self.run < 3 and self.rng.random() < 0.65:
            self.run += 1
            return "he"
        self.focus, self.run = slot, 0
        return "the" if not actor.name or self.rng.random() < 0.25 else "name"

    def text(self):
        return " ".join(self.lines)
