"""Write stories: one per line, the same ones for the same seed.

    python make_stories.py --first 0 --count 40000 > train.txt
    python make_stories.py --first 90000000 --count 500 > held_out.txt

Story number n depends on n alone, so any range can be made apart; held-out ranges are simply far away.
"""

import argparse
import random

from plots import PLOTS
from telling import Story


def story(number, seed=1):
    rng = random.Random(f"{seed}/{number}")
    s = Story(rng)
    rng.choice(PLOTS)(s)
    return s.text()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--first", type=int, default=0)
    p.add_argument("--count", type=int, default=1000)
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args()
    for n in range(a.first, a.first + a.count):
        print(story(n, a.seed))


if __name__ == "__main__":
    main()
