"""The contact sheet: pictures with their questions and answers, right and wrong."""

import textwrap

from PIL import Image, ImageDraw, ImageFont

from evaluate import rows_of

TILE, LINES, COLUMNS, PAD = 192, 14, 6, 12
RIGHT, WRONG, INK, PAPER = (20, 120, 50), (190, 30, 40), (50, 50, 60), (255, 255, 255)


def lines_of(rows):
    """(text, color) of each line under a picture."""
    for r in rows:
        yield from ((t, INK) for t in textwrap.wrap(r["question"], 32))
        good = r["reference_answer"] == r["answer"]
        said = ("\u2713 " if good else "\u2717 ") + r["reference_answer"]
        yield from ((t, RIGHT if good else WRONG) for t in textwrap.wrap(said, 32))
        if not good:
            yield from ((t, INK) for t in textwrap.wrap("truth: " + r["answer"], 32))


def sheet(a):
    """Write `a.sheet`: the first pictures of the set, each with as many of its questions as there is room for."""
    rows = rows_of(a.eval)
    names = sorted({r["image"] for r in rows})[:a.tiles]
    font, step = ImageFont.truetype("DejaVuSans.ttf", 11), 14
    height = TILE + LINES * step + 2 * PAD
    page = Image.new("RGB", (COLUMNS * (TILE + PAD) + PAD, -(-len(names) // COLUMNS) * height + PAD), PAPER)
    d = ImageDraw.Draw(page)
    for k, name in enumerate(names):
        x, y = PAD + k % COLUMNS * (TILE + PAD), PAD + k // COLUMNS * height
        page.paste(Image.open(a.eval / name).convert("RGB").resize((TILE, TILE), Image.BICUBIC), (x, y))
        shown = []
        # Another family comes first at each picture; right or wrong plays no part.
        mine = [r for r in rows if r["image"] == name]
        mine = mine[k % len(mine):] + mine[:k % len(mine)]
        for r in mine:
            more = list(lines_of([r]))
            if len(shown) + len(more) <= LINES:
                shown += more
        for i, (text, color) in enumerate(shown):
            d.text((x, y + TILE + 4 + i * step), text, font=font, fill=color)
    page.save(a.sheet, quality=82, optimize=True)
    print(f"{a.sheet}: {len(names)} pictures, {a.sheet.stat().st_size:,} bytes", flush=True)
