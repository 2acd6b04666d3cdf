"""The world: scenes of things, without pictures.

A scene holds one to five things. A thing is a plane shape, a digit or a capital
letter in one of eight colors, at a place and of a size given as fractions of the
picture's side. Everything is a function of a `random.Random`.
"""

import math
from dataclasses import dataclass

SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")
DIGITS = tuple("0123456789")
LETTERS = tuple("ABCDEFGHJKLMNPRSTUVWXYZ")  # I, O and Q look too much like 1 and 0
KINDS = SHAPES + DIGITS + LETTERS
COLORS = {
    "red": (215, 35, 40),
    "orange": (245, 140, 25),
    "yellow": (245, 225, 50),
    "green": (40, 160, 60),
    "blue": (40, 80, 215),
    "purple": (135, 50, 165),
    "white": (245, 245, 245),
    "black": (22, 22, 24),
}
NUMBERS = ("zero", "one", "two", "three", "four", "five")
CELLS = 4  # no two centers share a cell of a CELLS x CELLS grid
FAMILIES = ("color", "shape", "glyph", "count", "position", "where", "exists", "relation", "caption", "list")


@dataclass
class Thing:
    """One object: center and radius are fractions of the picture's side."""

    kind: str
    color: str
    x: float
    y: float
    r: float

    @property
    def type(self):
        return "shape" if self.kind in SHAPES else "digit" if self.kind in DIGITS else "letter"

    @property
    def cell(self):
        return int(self.y * CELLS), int(self.x * CELLS)

    @property
    def name(self):
        """What a person would call it: "circle", "digit 7", "letter K"."""
        return self.kind if self.type == "shape" else f"{self.type} {self.kind}"


def sample_kind(rng):
    return rng.choice(rng.choices((SHAPES, DIGITS, LETTERS), (40, 28, 32))[0])


def sample_scene(rng):
    """One to five things that do not overlap, no two alike."""
    count = rng.choices((1, 2, 3, 4, 5), (14, 26, 26, 19, 15))[0]
    while True:
        things = []
        for _ in range(60):
            # A repeated kind or color now and then makes counting worth asking.
            kind = rng.choice(things).kind if things and rng.random() < 0.2 else sample_kind(rng)
            color = rng.choice(things).color if things and rng.random() < 0.15 else rng.choice(list(COLORS))
            r = rng.uniform(0.085, 0.17 if count < 4 else 0.145)
            margin = r + 0.01
            t = Thing(kind, color, rng.uniform(margin, 1 - margin), rng.uniform(margin, 1 - margin), r)
            if fits(t, things) and all((t.kind, t.color) != (o.kind, o.color) for o in things):
                things.append(t)
                if len(things) == count:
                    return things


def fits(t, things):
    return all(math.hypot(t.x - o.x, t.y - o.y) > t.r + o.r + 0.015 and t.cell != o.cell for o in things)


def sample_packed(rng):
    """A scene for the vision phase only: as many small things as fit, in three to five colors.

    Many labels per picture make the tower learn fast; few colors leave room for a ground that contrasts with all.
    """
    palette = rng.sample(list(COLORS), rng.randint(3, 5))
    cells = [(row, column) for row in range(CELLS) for column in range(CELLS)]
    rng.shuffle(cells)
    things = []
    for row, column in cells[:rng.randint(9, 14)]:
        kind, color, r = rng.choice(KINDS), rng.choice(palette), rng.uniform(0.08, 0.12)
        low, high = r + 0.01, 1 - r - 0.01
        for _ in range(12):
            x, y = (min(high, max(low, (k + rng.random()) / CELLS)) for k in (column, row))
            t = Thing(kind, color, x, y, r)
            if fits(t, things):
                things.append(t)
                break
    return things
