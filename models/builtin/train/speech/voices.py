"""Who speaks: espeak-ng's accents of English and its voice variants, by the names of their files."""

ACCENTS = "en en-us en-gb-scotland en-gb-x-gbclan en-gb-x-rp en-gb-x-gbcwmd en-029".split()

VARIANTS = """Alex Alicia Andy Denis Gene Gene2 Hugo Jacky Lee Marco Mario Mike Nguyen RicishayMax Tweaky anika antonio aunty belinda
benjamin boris david ed edward edward2 f1 f2 f4 f5 grandma grandpa iven iven2 iven3 john kaukovalta klatt klatt2 klatt3 klatt5 m1 m2
m3 m5 m6 m7 marcelo max miguel norbert pablo paul pedro quincy rob robert sandro shelby steph steph2 travis victor zac""".split()

# Neither these variants nor the accent of New York occur in training.
HELD_OUT = """en-us+Annie en-us+Michael en-us+adam en+linda en+f3 en+m4 en-gb-scotland+Andrea en-gb-x-rp+Diogo
en-gb-x-gbclan+Henrique en-us-nyc+m8 en-us-nyc+michel en-029+gustave""".split()


def voice(rng):
    """A voice for training."""
    return f"{rng.choice(ACCENTS)}+{rng.choice(VARIANTS)}"
