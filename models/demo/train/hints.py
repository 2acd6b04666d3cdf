"""Hints: what a token talks about, told to the decoder's middle layers while it learns.

An answer says little about how it is found: a wrong yes does not tell whether the wrong thing was looked up or the right
ones were compared wrongly. So two linear heads, dropped at export, read off which cells a token means. `named`, halfway
through the layers: the last word of every mention ("the red circle", "letters") has found the things it means. `next`, one layer
before the end: a token knows which thing the token after it talks about.
"""

import re

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from scenes import COLORS, KINDS, SHAPES
from text import AFTER

TYPES = ("shape", "digit", "letter")
PLURAL = {f"{k}s": k for k in (*TYPES, *SHAPES)} | {"crosses": "cross"}
WORD = re.compile(r"[A-Za-z]+|\d")
LEAD = AFTER.index("{")


def mentions(text):
    """(end, {color, type, kind}) of every run of words that names things."""
    out = []
    for m in WORD.finditer(text):
        word = PLURAL.get(m[0], m[0])
        part = "color" if word in COLORS else "type" if word in TYPES else "kind" if word in KINDS else None
        if part is None and word not in ("object", "objects") or m.start() == 0:
            continue
        what = {part: word} if part else {}
        joined = out and out[-1][0] == m.start() - 1 and text[m.start() - 1] == " "
        if joined:
            what = out.pop()[1] | what
        out.append((m.end(), what))
    return out


def meant(what, things):
    return [t for t in things if all(getattr(t, k) == v for k, v in what.items())]


def answered(family, answer, things):
    """(start, end, thing) of every stretch of an answer that talks about one thing."""
    if family == "list":
        row, at, out = sorted(things, key=lambda t: t.x), 0, []
        for t in row:
            piece = f"{t.kind} is {t.color}"
            at = answer.index(piece, at)
            out.append((at, at + len(piece), t))
            at += len(piece)
        return out
    if family in ("caption", "position"):
        out = []
        for m in re.finditer("|".join(re.escape(f"{t.color} {t.kind}") + r"\b" for t in things), answer):
            out.append((m.start(), m.end(), next(t for t in things if f"{t.color} {t.kind}" == m[0])))
        return out
    return []


class Hints(nn.Module):
    """The two heads: which cells, and a center, each."""

    def __init__(self, size):
        super().__init__()
        self.size = size
        self.heads = nn.ModuleList(nn.Linear(size.hidden, size.tokens + 2) for _ in range(2))
        self.layers = size.named, size.next

    def labels(self, packer, asked, scenes, cells):
        """For each head: (picture, token) [n, 2], cells [n, tokens] of 0 and 1, centers [n, 2], NaN unless it is one thing.

        cells: those of each scene's things, as `pictures.seats` gives them.
        """
        rows = ([], [])
        for b, (things, items) in enumerate(zip(scenes, asked)):
            base, cell = 0, {id(t): c for t, c in zip(things, cells[b])}
            seen = lambda group: ([cell[id(t)] for t in group], (group[0].x, group[0].y) if len(group) == 1 else ())
            for family, question, answer in items:
                q, a = packer.encoded(question, answer)
                last = base + len(q.ids) - 1
                found = [(end, meant(what, things)) for end, what in mentions(question)]
                ends = {e - LEAD: i for i, (_, e) in enumerate(q.offsets)}
                for end, group in found:
                    rows[0].append((b, base + ends[end], *seen(group)))
                if family not in ("caption", "list", "position", "relation", "glyph") and found:
                    rows[1].append((b, last, *seen(found[-1][1])))
                ends = {e: i for i, (_, e) in enumerate(a.offsets)}
                for start, end, t in answered(family, answer, things):
                    stop = ends[end]
                    rows[0].append((b, last + 1 + stop, *seen([t])))
                    first = min(i for i, (s, e) in enumerate(a.offsets) if e > start)
                    rows[1].extend((b, last + i, *seen([t])) for i in range(first, stop + 1))
                base += len(q.ids) + len(a.ids) - 1
        return [self.tensors(r) for r in rows]

    def tensors(self, rows):
        n = len(rows)
        at, center = np.zeros((n, 2), np.int64), np.full((n, 2), np.nan, np.float32)
        cells = np.zeros((n, self.size.tokens), np.float32)
        for i, (b, token, here, place) in enumerate(rows):
            at[i] = b, token
            cells[i, here] = 1.0
            if place:
                center[i] = 2 * place[0] - 1, 2 * place[1] - 1
        return [torch.from_numpy(v) for v in (at, cells, center)]

    def forward(self, states, labels):
        """Loss, and the share of tokens with all cells right, of each head."""
        loss, right = 0.0, []
        for head, layer, (at, cells, center) in zip(self.heads, self.layers, labels):
            dev = states[0].device
            h = states[layer][at[:, 0].to(dev), at[:, 1].to(dev)].float()
            out = head(F.rms_norm(h, h.shape[-1:]))
            cells, center = cells.to(dev), center.to(dev)
            logits, guess = out[:, :-2], out[:, -2:]
            loss = loss + 4 * F.binary_cross_entropy_with_logits(logits, cells)
            one = ~center[:, 0].isnan()
            loss = loss + F.smooth_l1_loss(guess[one], center[one], beta=0.1)
            right.append(((logits > 0) == (cells > 0)).all(1).float().mean())
        return loss, right
