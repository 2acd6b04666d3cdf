"""A larger decoder that computes what a trained smaller one does, to train on from there (as in Net2Net).

Every hidden channel, head and inner channel is there twice, and what reads both takes half of each; new layers and
the inner channels left over add nothing at first. A little noise tells the twins apart.
"""

import json

import torch
import torch.nn.functional as F

from draw import sample_picture
from evaluate import Reference
from pictures import BORDER, targets
from reader import Oracle

NOISE = 0.05  # of a matrix's own spread


def twice(w, dim):
    return torch.cat([w, w], dim)


def heads(w, count, groups, half):
    """Rows (dim 0) of `count` heads in `groups`: each group's heads twice, one after the other; half: as inputs."""
    parts = w.view(groups, count // groups, -1, *w.shape[1:])
    return torch.cat([parts, parts], 1).reshape(2 * w.shape[0], *w.shape[1:]) * (0.5 if half else 1.0)


@torch.no_grad()
def widen(reader, oracle, old, tokens, small):
    """Set `reader` and `oracle`, of twice the width, from a reader's weights `old` and an oracle's `tokens` of size `small`."""
    into = lambda w: twice(w, 1) / 2  # a matrix that reads hidden channels
    out = {"decoder.embed_tokens.weight": twice(old["decoder.embed_tokens.weight"], 1),
           "decoder.norm.weight": twice(old["decoder.norm.weight"], 0) / 2,  # the head's rows are twice as long
           "linear_1.weight": twice(old["linear_1.weight"], 0), "linear_1.bias": twice(old["linear_1.bias"], 0),
           "linear_2.weight": into(twice(old["linear_2.weight"], 0)), "linear_2.bias": twice(old["linear_2.bias"], 0)}
    depth = reader.decoder.config.num_hidden_layers
    homes = [round(i * (depth - 1) / (small.depth - 1)) for i in range(small.depth)]
    mine = reader.state_dict()
    for home in range(depth):
        at = f"decoder.layers.{home}."
        if home not in homes:
            for name in ("self_attn.o_proj.weight", "mlp.down_proj.weight"):
                out[f"{at}{name}"] = torch.zeros_like(mine[at + name])
            continue
        layer = {k.split(".", 3)[3]: v for k, v in old.items() if k.startswith(f"decoder.layers.{homes.index(home)}.")}
        for name in ("input_layernorm.weight", "post_attention_layernorm.weight"):
            out[at + name] = twice(layer[name], 0)
        for part in "qkv":
            w, b = into(layer[f"self_attn.{part}_proj.weight"]), layer[f"self_attn.{part}_proj.bias"]
            if part == "q":
                w, b = (heads(v, small.heads, small.kv_heads, False) for v in (w, b))
            out[f"{at}self_attn.{part}_proj.weight"], out[f"{at}self_attn.{part}_proj.bias"] = w, b
        o = heads(layer["self_attn.o_proj.weight"].T.contiguous(), small.heads, small.kv_heads, True).T
        out[f"{at}self_attn.o_proj.weight"] = twice(o, 0)
        for part in ("gate", "up"):
            w = mine[f"{at}mlp.{part}_proj.weight"].clone()
            w[:2 * small.inner] = twice(into(layer[f"mlp.{part}_proj.weight"]), 0)
            out[f"{at}mlp.{part}_proj.weight"] = w
        w = torch.zeros_like(mine[f"{at}mlp.down_proj.weight"])
        w[:, :2 * small.inner] = into(twice(layer["mlp.down_proj.weight"], 0))
        out[f"{at}mlp.down_proj.weight"] = w
    gen = torch.Generator().manual_seed(0)
    for name, w in out.items():
        if w.dim() == 2 and ".layers." in name:
            out[name] = w + NOISE * w.std() * torch.randn(w.shape, generator=gen)
    reader.load_state_dict(mine | out)
    for name in ("kind", "color", "place"):
        part = getattr(oracle, name)
        for key, p in part.named_parameters():
            w = tokens[f"{name}.{key}"]
            p.copy_(twice(w, 1 if w.dim() == 2 and name != "place" else 0))


def check_widening(large, small, folder):
    """Refuse a size that is not twice the small one, and a folder whose model is not of the small size."""
    if (large.hidden, large.heads, large.kv_heads) != (2 * small.hidden, 2 * small.heads, small.kv_heads):
        raise SystemExit(f"--widen: {large.name} has not twice the width and heads of {small.name}; leave --widen out, or choose --size 25m")
    found = json.loads((folder / "config.json").read_text())["text_config"]
    wrong = [f"{k} {found.get(k)}, expected {v}" for k, v in small.text.items() if found.get(k) != v]
    if wrong:
        raise SystemExit(f"--widen {folder}: its config.json has {'; '.join(wrong)}; expected an exported model of size {small.name}")


@torch.no_grad()
def spoken(folder, small, seed, count, ridge=1.0):
    """The oracle whose tokens an exported model of size `small` comes closest to making, by least squares on `count` pictures.

    The bridge held the model's tokens close to its own oracle's, which no export holds.
    """
    oracle, model = Oracle(small), Reference(folder)
    rows, tokens, empty = [], [], []
    for i in range(count):
        things, picture = sample_picture(f"{seed}/spoken/{i}", side=small.side)
        img = model.look(picture)[0]
        kind, color, place = (t[0] for t in targets([things], small.grid))
        inside = ((place[:, :2] - 0.5).abs() < 0.5 - BORDER * small.grid).all(1)
        full = (kind >= 0) & inside  # of the others it is not sure in which cell they sit
        parts = F.one_hot(kind[full], oracle.empty), F.one_hot(color[full], oracle.color.num_embeddings), oracle.waves(place[full])
        rows.append(torch.cat(parts, 1))
        tokens.append(img[full])
        if (inside | (kind < 0)).all():
            empty.append(img[kind < 0])
    x, y, nothing = torch.cat(rows), torch.cat(tokens), torch.cat(empty).mean(0)
    base = y.mean(0)
    fit = torch.linalg.solve(x.T @ x + ridge * torch.eye(x.shape[1]), x.T @ (y - base))
    left = (y - base - x @ fit).square().mean() / y.var(0).mean()
    print(f"{folder}: an oracle explains all but {100 * left:.0f} % of the spread of its tokens", flush=True)
    kinds, colors, place = fit.split((oracle.empty, oracle.color.num_embeddings, x.shape[1] - oracle.empty - oracle.color.num_embeddings))
    oracle.kind.weight.copy_(torch.cat([kinds, nothing[None]]))
    oracle.color.weight.copy_(colors)
    oracle.place.weight.copy_(place.T)
    oracle.place.bias.copy_(base)
    return oracle.state_dict()
