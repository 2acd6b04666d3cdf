"""Pictures of scenes, drawn with Pillow on busy backgrounds."""

import math
import random
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from scenes import COLORS, sample_packed, sample_scene

FONTS = (
    "DejaVuSans-Bold.ttf", "DejaVuSans.ttf", "DejaVuSansMono-Bold.ttf", "DejaVuSansCondensed-Bold.ttf",
    "DejaVuSerif-Bold.ttf", "LiberationSans-Bold.ttf", "LiberationSans-Regular.ttf", "LiberationMono-Bold.ttf",
    "LiberationSerif-Bold.ttf",
)
OVER = 3  # masks are drawn this many times larger and then reduced


@lru_cache(maxsize=None)
def font(name, size):
    return ImageFont.truetype(name, size)


def regular(n, radius, angle, inner=None):
    """Corner points of a regular polygon, or of a star when `inner` is a radius."""
    points = []
    for i in range(n * (2 if inner else 1)):
        a = angle + 2 * math.pi * i / (n * (2 if inner else 1))
        rad = inner if inner and i % 2 else radius
        points.append((rad * math.sin(a), -rad * math.cos(a)))
    return points


def mask(thing, side, rng):
    """Coverage of one thing as an 8-bit picture centerd on it."""
    half = max(4, math.ceil(thing.r * side) + 2)
    big = 2 * half * OVER
    m = Image.new("L", (big, big), 0)
    d = ImageDraw.Draw(m)
    c, r = big / 2, thing.r * side * OVER

    def polygon(points):
        d.polygon([(c + x, c + y) for x, y in points], fill=255)

    if thing.kind == "circle":
        d.ellipse((c - r, c - r, c + r, c + r), fill=255)
    elif thing.kind == "ring":
        hole = r * rng.uniform(0.5, 0.68)
        d.ellipse((c - r, c - r, c + r, c + r), fill=255)
        d.ellipse((c - hole, c - hole, c + hole, c + hole), fill=0)
    elif thing.kind == "square":
        polygon(regular(4, r, rng.uniform(0, math.pi / 2)))
    elif thing.kind == "triangle":
        polygon(regular(3, r, rng.uniform(0, 2 * math.pi / 3)))
    elif thing.kind == "star":
        polygon(regular(5, r, rng.uniform(0, 2 * math.pi / 5), inner=r * rng.uniform(0.38, 0.48)))
    elif thing.kind == "cross":
        w, a = r * rng.uniform(0.24, 0.36), rng.uniform(-0.3, 0.3)
        arm = [(-w, -r), (w, -r), (w, r), (-w, r)]
        for turn in (a, a + math.pi / 2):
            polygon([(x * math.cos(turn) - y * math.sin(turn), x * math.sin(turn) + y * math.cos(turn)) for x, y in arm])
    else:
        # The glyph's ink box is fitted to a circle of the wanted radius.
        size = max(8, 4 * round(2.4 * r / 4))
        f = font(rng.choice(FONTS), size)
        left, top, right, bottom = f.getbbox(thing.kind)
        d.text((c - (left + right) / 2, c - (top + bottom) / 2), thing.kind, font=f, fill=255)
        m = m.rotate(rng.uniform(-15, 15), resample=Image.BILINEAR)
    return m.resize((2 * half, 2 * half), Image.BOX), half


def far(a, b):
    """Color difference with the weights the eye gives to red, green and blue."""
    return math.sqrt(sum(w * (x - y) ** 2 for w, x, y in zip((0.9, 1.4, 0.7), a, b)))


def jitter(color, rng, amount):
    return tuple(min(255.0, max(0.0, v + rng.uniform(-amount, amount))) for v in color)


def background(things, side, rng, noise):
    """Flat, graded, striped, cloudy or noisy ground that contrasts with every thing."""
    inks = [COLORS[t.color] for t in things]
    for limit in range(150, 0, -2):  # settle for less contrast if the inks leave little room
        ground = [rng.uniform(0, 255) for _ in range(3)]
        if rng.random() < 0.5:  # half of the grounds are grayish
            mean = sum(ground) / 3
            ground = [mean + 0.3 * (v - mean) for v in ground]
        if min(far(ground, i) for i in inks) > limit:
            break
    other = jitter(ground, rng, 40)
    if min(far(other, i) for i in inks) < 80:
        other = ground
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side
    style = rng.randrange(5)
    if style == 0:
        blend = np.zeros_like(x)
    elif style == 1:  # linear
        a = rng.uniform(0, 2 * math.pi)
        blend = 0.5 + 0.7 * ((x - 0.5) * math.cos(a) + (y - 0.5) * math.sin(a))
    elif style == 2:  # radial
        blend = 1.2 * np.hypot(x - rng.random(), y - rng.random())
    elif style == 3:  # stripes
        a, f = rng.uniform(0, math.pi), rng.uniform(15, 70)
        blend = 0.5 + 0.5 * np.sin(f * (x * math.cos(a) + y * math.sin(a)))
    else:  # clouds
        n = rng.choice((3, 5, 9, 17))
        coarse = np.frombuffer(rng.randbytes(n * n), np.uint8).reshape(n, n)
        blend = np.asarray(Image.fromarray(coarse).resize((side, side), Image.BICUBIC), np.float32) / 255
    blend = np.clip(blend, 0, 1)[..., None]
    img = np.float32(ground) * (1 - blend) + np.float32(other) * blend
    if noise and rng.random() < 0.5:
        g = np.random.default_rng(rng.getrandbits(32))
        img += g.standard_normal((side, side, 1 if rng.random() < 0.5 else 3), np.float32) * rng.uniform(2, 12)
    img = Image.fromarray(np.clip(img, 0, 255).astype(np.uint8))
    if rng.random() < 0.5:  # thin lines and specks that are not things
        d = ImageDraw.Draw(img)
        for _ in range(rng.randint(2, 12)):
            tone = tuple(int(v) for v in jitter(ground, rng, 45))
            x0, y0 = rng.uniform(0, side), rng.uniform(0, side)
            if rng.random() < 0.5:
                d.line((x0, y0, x0 + rng.uniform(-0.5, 0.5) * side, y0 + rng.uniform(-0.5, 0.5) * side), tone, 1)
            else:
                s = rng.uniform(0.004, 0.014) * side
                d.ellipse((x0 - s, y0 - s, x0 + s, y0 + s), tone)
    return img


def render(things, rng, side=256, noise=True):
    """The picture of a scene, `side` x `side` RGB."""
    img = background(things, side, rng, noise)
    for t in things:
        m, half = mask(t, side, rng)
        ink = tuple(int(v) for v in jitter(COLORS[t.color], rng, 16))
        img.paste(ink, (round(t.x * side) - half, round(t.y * side) - half), m)
    if rng.random() < 0.3:
        img = img.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.0) * side / 256))
    return img


def sample_picture(seed, packed=False, side=256):
    """(things, picture) number `seed`, for a model of `side` pixels; the picture has one of a few native sizes."""
    rng = random.Random(seed)
    things = sample_packed(rng) if packed else sample_scene(rng)
    return things, render(things, rng, rng.choice((192, 224, 256, 256, 320)) * side // 256)
