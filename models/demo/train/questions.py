"""Questions about scenes, with answers that follow from the scene."""

from scenes import COLORS, NUMBERS, SHAPES, Thing, sample_kind


def article(phrase):
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def phrase(t):
    """Short noun phrase of an answer: "red circle", "blue 7"."""
    return f"{t.color} {t.kind}"


def only(items):
    items = list(items)
    return items[0] if len(items) == 1 else None


def ask_color(things, rng):
    t = rng.choice(things)
    if only(o for o in things if o.kind == t.kind) is None:
        return None
    name = t.name
    if t.type != "shape" and only(o for o in things if o.type == t.type) and rng.random() < 0.5:
        name = t.type
    return rng.choice(("What color is the {}?", "Which color does the {} have?")).format(name), t.color


def ask_shape(things, rng):
    t = rng.choice(things)
    if t.type != "shape" or only(o for o in things if o.color == t.color) is None:
        return None
    return rng.choice(("What shape is the {} object?", "Which shape is {}?")).format(t.color), t.kind


def ask_glyph(things, rng):
    t = rng.choice(things)
    if t.type == "shape":
        return None
    same = [o for o in things if o.type == t.type]
    if len(same) == 1 and rng.random() < 0.6:
        return rng.choice(("What {} is shown?", "Which {} is in the image?")).format(t.type), t.kind
    if only(o for o in same if o.color == t.color) is None:
        return None
    return rng.choice(("What {1} is {0}?", "What is the {0} {1}?")).format(t.color, t.type), t.kind


def ask_count(things, rng):
    t, pick = rng.choice(things), rng.random()
    if pick < 0.35:
        what, n = "objects", len(things)
    elif pick < 0.55:
        color = t.color if rng.random() < 0.8 else rng.choice(list(COLORS))
        what, n = f"{color} objects", sum(o.color == color for o in things)
    elif pick < 0.75:
        kind = t.type if rng.random() < 0.8 else rng.choice(("shape", "digit", "letter"))
        what, n = f"{kind}s", sum(o.type == kind for o in things)
    else:
        kind = t.kind if t.type == "shape" and rng.random() < 0.8 else rng.choice(SHAPES)
        what, n = {"cross": "crosses"}.get(kind, kind + "s"), sum(o.kind == kind for o in things)
    return rng.choice(("How many {} are there?", "How many {} do you see?")).format(what), NUMBERS[n]


def ask_position(things, rng):
    side = rng.choice(("left", "right", "top", "bottom"))
    key = {"left": lambda t: t.x, "right": lambda t: -t.x, "top": lambda t: t.y, "bottom": lambda t: -t.y}[side]
    order = sorted(things, key=key)
    if len(order) < 2 or key(order[1]) - key(order[0]) < 0.08:
        return None
    return rng.choice(("What is the {}most object?", "Which object is {}most?")).format(side), phrase(order[0])


def ask_exists(things, rng):
    if rng.random() < 0.5:
        t = rng.choice(things)
        color, kind = t.color, t.kind
    else:  # a near miss more often than not
        t = rng.choice(things)
        color = t.color if rng.random() < 0.4 else rng.choice(list(COLORS))
        kind = t.kind if rng.random() < 0.4 else sample_kind(rng)
    if rng.random() < 0.3:
        yes = any(o.kind == kind for o in things)
        noun = Thing(kind, color, 0, 0, 0).name
        what = article(noun)
    else:
        yes = any(o.kind == kind and o.color == color for o in things)
        what = article(f"{color} {kind}")
    return f"Is there {what}?", "yes" if yes else "no"


RELATIONS = {"left of": ("x", -1), "right of": ("x", 1), "above": ("y", -1), "below": ("y", 1)}


def ask_relation(things, rng):
    if len(things) < 2:
        return None
    a, b = rng.sample(things, 2)
    rel = rng.choice(list(RELATIONS))
    axis, sign = RELATIONS[rel]
    gap = sign * (getattr(a, axis) - getattr(b, axis))
    if abs(gap) < 0.1:
        return None
    return f"Is the {phrase(a)} {rel} the {phrase(b)}?", "yes" if gap > 0 else "no"


def ask_caption(things, rng):
    ask = rng.choice(("Describe the image.", "What do you see?"))
    if len(things) == 1:
        return ask, article(phrase(things[0]))
    row = sorted(things, key=lambda t: t.x)
    if len(things) == 2:
        dx, dy = row[1].x - row[0].x, row[1].y - row[0].y
        if abs(dx - abs(dy)) < 0.08:
            return None
        if dx > abs(dy):
            a, b, rel = row[0], row[1], "left of"
        else:
            a, b, rel = (row[0], row[1], "above") if dy > 0 else (row[1], row[0], "above")
        return ask, f"{article(phrase(a))} {rel} {article(phrase(b))}"
    if min(b.x - a.x for a, b in zip(row, row[1:])) < 0.05:  # the order must be plain to see
        return None
    names = [article(phrase(t)) for t in row]
    return ask, ", ".join(names[:-1]) + " and " + names[-1]


def ask_where(things, rng):
    t = rng.choice(things)
    words = []
    for v, low, high in ((t.y, "top", "bottom"), (t.x, "left", "right")):
        if 0.37 < v < 0.44 or 0.56 < v < 0.63:  # neither here nor there
            return None
        words += [low] if v < 0.4 else [high] if v > 0.6 else []
    return f"Where is the {phrase(t)}?", " ".join(words) or "center"


def ask_list(things, rng):
    row = sorted(things, key=lambda t: t.x)
    if len(row) > 1 and min(b.x - a.x for a, b in zip(row, row[1:])) < 0.05:
        return None
    parts = [f"the {t.kind} is {t.color}" for t in row]
    return "List the colors.", " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))


ASK = {
    "color": ask_color, "shape": ask_shape, "glyph": ask_glyph, "count": ask_count, "position": ask_position,
    "exists": ask_exists, "relation": ask_relation, "caption": ask_caption,
    "where": ask_where, "list": ask_list,
}


def questions(things, rng, families):
    """One (family, question, answer) for each wanted family that this scene allows."""
    out = []
    for family in families:
        for _ in range(4):
            qa = ASK[family](things, rng)
            if qa:
                out.append((family, *qa))
                break
    return out
