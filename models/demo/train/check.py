"""That the fast paths of training compute what the plain ones do."""

import random

import torch

import warm
from export import decoder_tensors, fold
from reader import Oracle, Reader
from pictures import targets
from scenes import sample_scene
from text import ask, train_tokenizer
from tower import Tower


def close(name, got, want, limit):
    gap = ((got - want).norm() / want.norm()).item()
    print(f"check: {name}: relative difference {gap:.1e}, limit {limit:.0e}", flush=True)
    if not gap < limit:
        raise SystemExit(f"check: {name} differs by {gap:.1e}, expected less than {limit:.0e}")


def gradients(module):
    return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])


def check(a):
    torch.manual_seed(a.seed)
    x = torch.rand(2, a.size.side, a.size.side, 3)
    tower(a, x)
    reader(a)


def tower(a, x):
    one, two = Tower(a.size), Tower(a.size)
    two.load_state_dict(one.state_dict())
    got, want = one(x), two.timm.forward_features(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    got.square().mean().backward()
    want.square().mean().backward()
    close("tower in NHWC, features", got, want, 1e-3)
    close("tower in NHWC, gradients", gradients(one), gradients(two), 1e-2)
    close("tower in NHWC, statistics", torch.cat([b.float().flatten() for b in one.buffers()]),
          torch.cat([b.float().flatten() for b in two.buffers()]), 1e-3)
    three = Tower(a.size)
    folded = {k: v.float() for k, v in fold(two, a.size.side).state_dict().items()}
    warm.unfold(three, folded, x)
    with torch.no_grad():
        close("tower folded and unfolded", three(x), one.eval()(x), 1e-2)


@torch.no_grad()
def reader(a):
    """Packed questions against one at a time, in float32 with the oracle's tokens; and what ternary export stores."""
    rng, tok = random.Random(a.seed), train_tokenizer(a.size)
    r, oracle = Reader(a.size, tok, a.ternary).eval(), Oracle(a.size)
    scenes = [sample_scene(rng) for _ in range(3)]
    asked = [[qa[1:] for qa in ask(s, rng, 4)] for s in scenes]
    img = oracle(*targets(scenes, a.size.grid))
    packed = r(img, asked)[0]
    single = torch.cat([r(img[b:b + 1], [[qa]])[0] for b, row in enumerate(asked) for qa in row])
    close("packed questions, logits", packed, single, 1e-4)
    if a.ternary:
        for name, w in decoder_tensors(r):
            if ".layers." in name and w.dim() == 2 and len(levels := w.bfloat16().unique()) > 3:
                raise SystemExit(f"check: {name} stores {len(levels)} levels, expected 3")
        print("check: ternary matrices have three levels in bf16", flush=True)
