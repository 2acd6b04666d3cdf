"""The three phases of training: the tower alone, the decoder alone, both together."""

import random

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from tokenizers import Tokenizer
from torch import nn

from config import SIZES
from draw import sample_picture
from export import reader_tensors, tower_tensors
from hints import Hints
from loop import Run, rank, ranks
from pictures import Pool, exposed, seats, targets
from questions import questions
from reader import Oracle, Reader, answer_loss
from scenes import FAMILIES, sample_scene
from start import begin
from text import ask, score, train_tokenizer
from tower import CellHead, Tower
from warm import unfold
from widen import spoken, widen


def pool(a, packed):
    workers = 0 if rank() else a.workers  # the first process's workers draw for all
    return Pool(a.data, packed, a.size.side, a.slots, workers, a.reuse / ranks(), f"{a.seed}/train")


def fresh(run, gen, a):
    """Random numbers that a resumed run does not see twice."""
    gen.manual_seed(1000003 * a.seed + run.step + 500009 * rank())
    return random.Random(f"{run.path.stem} {a.seed} {run.step} {rank()}")


def restored(path, part, module):
    """`module` with the averaged weights that an earlier phase left; ternary matrices start from float ones."""
    state = torch.load(path, map_location="cpu")["average"][part]
    module.load_state_dict({k: state[k if k in state else k.replace(".parametrizations.weight.original", ".weight")]
                            for k in module.state_dict()})
    return module


# --------------------------------------------------------------------------- vision

def vision(a):
    """The tower and its cell head on packed pictures, with a share of plain ones."""
    torch.manual_seed(a.seed)
    gen = torch.Generator().manual_seed(a.seed)
    packed, plain = pool(a, True), pool(a, False)
    tower, head = Tower(a.size), CellHead(a.size)
    path = a.work / "vision.pt"
    packed.wait(8 * a.batch)
    plain.wait(a.batch)
    if a.warm and path.exists():
        print(f"{path} exists: --warm is left aside", flush=True)
    elif a.warm:
        rng = random.Random(a.seed)
        x = torch.cat([packed.batch(24, rng)[0], plain.batch(24, rng)[0]])
        unfold(tower, tower_tensors(a.warm), exposed(x, gen))
    tower, head = tower.to(a.device), head.to(a.device)
    run = Run(path, dict(tower=tower, head=head), [(tower, a.lr), (head, a.lr)], a)
    rng = fresh(run, gen, a)
    few = max(1, a.batch // 4)

    def draw():
        (x, scenes), (x2, scenes2) = packed.batch(a.batch - few, rng), plain.batch(few, rng)
        return torch.cat([x, x2]), scenes + scenes2

    while run.more():
        x, scenes = draw()
        x = exposed(x.to(a.device), gen)
        f = tower(x)
        loss, acc = head.loss(f, *labeled(head, f, scenes, a)[1])
        run.update(loss, len(x))
        run.report(("loss", "cell", "kind", "color", "offset"), (loss, *acc))
        if run.due(a.every):
            run.save()
            calibrate(run.average["tower"], draw, gen, a)
            run.note(step=run.step, seen=run.seen, minutes=round(run.seconds / 60, 2), drawn=packed.drawn() + plain.drawn(),
                     held=cells(run.average["tower"], run.average["head"], a))
    packed.close()
    plain.close()


@torch.no_grad()
def labeled(head, f, scenes, a):
    """(cells of the things, dense labels); the head decides about things on the edge of a cell."""
    full = head(f)[0][..., 0].tolist()
    cells = seats(scenes, a.size.grid, lambda b, free: max(free, key=full[b].__getitem__))
    return cells, [t.to(a.device) for t in targets(scenes, a.size.grid, cells)]


@torch.no_grad()
def calibrate(tower, draw, gen, a):
    """Exact BatchNorm statistics for averaged weights, of pictures as the phase draws them."""
    norms = [m for m in tower.modules() if isinstance(m, nn.BatchNorm2d)]
    tower.train()
    for i in range(a.calibrate):
        for m in norms:
            m.momentum = 1.0 / (i + 1)
        tower(exposed(draw()[0].to(a.device), gen))
    for m in norms:
        m.momentum = 0.1
    tower.eval()


def held_out(a, count):
    """`count` plain pictures that training never draws: (uint8 [count, side, side, 3], scenes)."""
    path = a.data / f"held-{a.seed}-{a.size.side}-{count}.pt"
    if not path.exists():
        got = [sample_picture(f"{a.seed}/held/{i}", side=a.size.side) for i in range(count)]
        x = np.stack([np.asarray(img.resize((a.size.side,) * 2, Image.BICUBIC)) for _, img in got])
        torch.save((torch.from_numpy(x), [things for things, _ in got]), path)
    return torch.load(path, weights_only=False)


@torch.no_grad()
def cells(tower, head, a):
    """[presence, kind, color] accuracy and mean distance on held-out pictures, and share of scenes all right."""
    x, scenes = held_out(a, a.held)
    total, whole = 0, []
    for i in range(0, len(x), a.batch):
        f = tower((x[i:i + a.batch].float() / 255).to(a.device))
        goal = labeled(head, f, scenes[i:i + a.batch], a)[1]
        total = total + head.loss(f, *goal)[1] * len(f)
        here, what, hue, _ = head(f)
        full = goal[0] >= 0
        good = ((here[..., 0] > 0) == full) & (~full | ((what.argmax(-1) == goal[0]) & (hue.argmax(-1) == goal[1])))
        whole += good.all(1).tolist()
    return [round(v, 4) for v in (total / len(x)).tolist() + [sum(whole) / len(whole)]]


# --------------------------------------------------------------------------- reading

def read(a):
    """The decoder on the oracle's tokens: no pictures, only scenes and many questions."""
    if a.ternary:
        print("ternary decoders read what the float one of joint.pt has learned: nothing to do", flush=True)
        return
    torch.manual_seed(a.seed + 1)
    path, tok = a.work / "read.pt", tokenizer(a)
    reader, oracle, hints = Reader(a.size, tok), Oracle(a.size), Hints(a.size)
    if a.widen and path.exists():
        print(f"{path} exists: --widen is left aside", flush=True)
    elif a.widen:
        widen(reader, oracle, reader_tensors(a.widen), spoken(a.widen, SIZES["demo"], a.seed, a.align), SIZES["demo"])
    elif not path.exists():
        begin(reader, oracle, tok)
    reader, oracle, hints = (m.to(a.device) for m in (reader, oracle, hints))
    modules = dict(reader=reader, oracle=oracle, hints=hints)
    run = Run(path, modules, [(m, a.lr) for m in modules.values()], a, dict(tokenizer=tok.to_str()))
    rng, hits = fresh(run, torch.Generator(), a), {}
    known = [sample_scene(random.Random(f"{a.seed}/held/{i}")) for i in range(a.held)]

    def imagined(scenes, rng, oracle):
        """(image tokens as the oracle makes them, cells of the things)"""
        cells = seats(scenes, a.size.grid, lambda b, free: rng.choice(free))
        goal = [t.to(a.device) for t in targets(scenes, a.size.grid, cells)]
        return oracle.blurred(*goal), cells

    while run.more():
        scenes = [sample_scene(rng) for _ in range(a.batch)]
        asked = [ask(s, rng, a.questions, hits) for s in scenes]
        img, cells = imagined(scenes, rng, oracle)
        *answers, states = reader(img, [[qa[1:] for qa in row] for row in asked])
        loss, (hint, found) = answer_loss(*answers), hints(states, hints.labels(reader.packer, asked, scenes, cells))
        run.update(loss + a.hint * hint, len(scenes))
        follow(hits, score(*answers, asked))
        run.report(("loss", "hint", "named", "next", *FAMILIES), (loss, hint, *found, *(hits.get(f, 0.0) for f in FAMILIES)))
        if run.due(a.every):
            run.save()
            look = lambda part: imagined(known[part], random.Random(part.start), run.average["oracle"])[0]
            run.note(step=run.step, seen=run.seen, minutes=round(run.seconds / 60, 2), held=exact(run.average["reader"], look, known, a))


def follow(hits, scored):
    for family, flags in scored.items():
        now = sum(flags) / len(flags)
        hits[family] = 0.95 * hits[family] + 0.05 * now if family in hits else now


def tokenizer(a):
    path = a.work / "tokenizer.json"
    if not path.exists():
        tok = Tokenizer.from_file(str(a.widen / "tokenizer.json")) if a.widen else train_tokenizer(a.size)
        tok.save(str(path))
    return Tokenizer.from_file(str(path))


# --------------------------------------------------------------------------- joint

def joint(a):
    """Everything together on plain pictures: answers, dense labels, and the bridge to the oracle's tokens."""
    torch.manual_seed(a.seed + 2)
    tok, plain, gen = tokenizer(a), pool(a, False), torch.Generator()
    path = a.work / f"joint{a.tag}.pt"
    tower, head, reader, oracle = Tower(a.size), CellHead(a.size), Reader(a.size, tok, a.ternary), Oracle(a.size)
    hints, done = Hints(a.size), a.work / "joint.pt" if a.ternary else None
    if not path.exists():
        restored(done or a.work / "vision.pt", "tower", tower)
        restored(done or a.work / "vision.pt", "head", head)
        restored(done or a.work / "read.pt", "reader", reader)
        restored(done or a.work / "read.pt", "hints", hints)
    restored(a.work / "read.pt", "oracle", oracle)
    tower, head, reader, oracle, hints = (m.to(a.device) for m in (tower, head, reader, oracle, hints))
    if not done and not path.exists():
        plain.wait(8 * a.batch)
        rng = random.Random(f"align {a.seed}")
        align(tower, head, reader, oracle, lambda: plain.batch(a.batch, rng), gen, a)
    run = Run(path, dict(tower=tower, head=head, reader=reader, hints=hints),
              [(tower, a.vision_lr), (head, a.vision_lr), (reader, a.lr), (hints, a.lr)], a, dict(tokenizer=tok.to_str()))
    rng, hits = fresh(run, gen, a), {}
    while run.more():
        x, scenes = plain.batch(a.batch, rng)
        asked = [ask(s, rng, a.questions, hits) for s in scenes]
        f = tower(exposed(x.to(a.device), gen))
        cells, goal = labeled(head, f, scenes, a)
        img = reader.project(f)
        *answers, states = reader(img, [[qa[1:] for qa in row] for row in asked])
        answer, bridge, (cell, acc) = answer_loss(*answers), oracle.bridge(img, *goal), head.loss(f, *goal)
        hint, found = hints(states, hints.labels(reader.packer, asked, scenes, cells))
        run.update(answer + a.bridge * bridge + a.cell * cell + a.hint * hint, len(x))
        follow(hits, score(*answers, asked))
        run.report(("loss", "bridge", "cells", "named", "next", "cell", "kind", "hue", "offset", *FAMILIES),
                   (answer, bridge, cell, *found, *acc, *(hits.get(f, 0.0) for f in FAMILIES)))
        if run.due(a.every):
            run.save()
            calibrate(run.average["tower"], lambda: plain.batch(a.batch, rng), gen, a)
            x, known = held_out(a, a.held)
            look = lambda part: run.average["reader"].project(run.average["tower"]((x[part].float() / 255).to(a.device)))
            run.note(step=run.step, seen=run.seen, minutes=round(run.seconds / 60, 2), drawn=plain.drawn(),
                     held=exact(run.average["reader"], look, known, a))
    plain.close()


def align(tower, head, reader, oracle, draw, gen, a):
    """Fit the projector to the oracle's tokens on `a.align` pictures, so that the decoder understands the tower at once."""
    features, goals = [], []
    with torch.no_grad():
        for _ in range(-(-a.align // a.batch)):
            x, scenes = draw()
            features.append(tower.train()(exposed(x.to(a.device), gen)))
            goals.append(oracle(*labeled(head, features[-1], scenes, a)[1]))
    features, goals = torch.cat(features), torch.cat(goals)
    params, steps = [*reader.linear_1.parameters(), *reader.linear_2.parameters()], 3 * a.align
    opt = torch.optim.Adam(params, lr=2e-3)
    for step in range(steps):
        pick = torch.randint(len(features), (16,), generator=gen).to(a.device)
        opt.param_groups[0]["lr"] = 2e-3 * (1 - step / steps)
        loss = F.mse_loss(reader.project(features[pick]), goals[pick]) / goals.var()
        opt.zero_grad()
        loss.backward()
        opt.step()
    print(f"aligned: {100 * loss.item():.0f} % of the oracle's variance left", flush=True)


@torch.no_grad()
def exact(reader, look, scenes, a):
    """Share of questions about held-out scenes whose whole greedy answer is right, per family and over all.

    look: image tokens of a slice of the scenes.
    """
    rng, hits = random.Random(1), {f: [] for f in FAMILIES}
    for i in range(0, len(scenes), a.batch):
        part = slice(i, i + a.batch)
        asked = [questions(s, rng, FAMILIES) for s in scenes[part]]
        for family, flags in score(*reader(look(part), [[qa[1:] for qa in row] for row in asked])[:3], asked).items():
            hits[family] += flags
    every = sum(hits.values(), [])
    return {f: round(sum(h) / max(1, len(h)), 3) for f, h in hits.items()} | {"all": round(sum(every) / len(every), 4)}
