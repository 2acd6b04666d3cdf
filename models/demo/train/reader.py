"""Projector and decoder, and the oracle that stands in for the tower while the decoder learns to reason."""

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize
from transformers import Qwen2Config, Qwen2Model

from scenes import COLORS, KINDS
from text import END, SPECIALS, Packer

ROPE_THETA, MAX_POS = 1000000.0, 1024


def text_config(size, tok):
    return dict(
        attention_dropout=0.0, bos_token_id=tok.token_to_id(SPECIALS[0]), eos_token_id=tok.token_to_id(END), hidden_act="silu",
        initializer_range=0.02, max_position_embeddings=MAX_POS, max_window_layers=size.depth,
        rms_norm_eps=1e-6, use_cache=True, use_sliding_window=False, sliding_window=None, tie_word_embeddings=True,
        vocab_size=size.bpe + len(SPECIALS), layer_types=["full_attention"] * size.depth,
        rope_parameters={"rope_theta": ROPE_THETA, "rope_type": "default"}, **size.text,
    )


class Ternary(nn.Module):
    """BitNet b1.58: a matrix of {-1, 0, 1} times its mean magnitude; the gradient passes straight through."""

    def forward(self, w):
        # The export stores bf16, and a scale that bf16 holds keeps the stored matrix exactly ternary.
        scale = w.detach().abs().mean().clamp_min(1e-5).bfloat16().float()
        return w + ((w / scale).round().clamp(-1, 1) * scale - w).detach()


class Reader(nn.Module):
    """Projector and decoder."""

    def __init__(self, size, tok, ternary=False):
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(size.width, size.hidden), nn.Linear(size.hidden, size.hidden)
        self.decoder = Qwen2Model(Qwen2Config(**text_config(size, tok)))
        nn.init.normal_(self.decoder.embed_tokens.weight, std=0.05)
        self.packer = Packer(tok, size.tokens)
        if ternary:
            for m in self.decoder.layers.modules():
                if type(m) is nn.Linear:
                    parametrize.register_parametrization(m, "weight", Ternary())

    def project(self, f):
        """The tower's [B, h, w, C] -> image tokens [B, h * w, hidden]."""
        return self.linear_2(F.gelu(self.linear_1(f.flatten(1, 2))))

    def forward(self, img, batch):
        """Logits and labels of every answer token, (picture, question) of each, and the layers' outputs for `hints`.

        img: image tokens [B, tokens, hidden]; batch: one list of (question, answer) per picture.
        """
        ids, pos, lab, own, mask = self.packer.pack(batch)
        want = lab >= 0
        n, dev = len(ids), img.device
        table = self.decoder.embed_tokens.weight
        prefix = table[torch.tensor(self.packer.before, device=dev)].expand(n, -1, -1)
        x = torch.cat([prefix, img, table[ids.to(dev)]], 1)
        with torch.autocast("cuda", torch.bfloat16, enabled=img.is_cuda):
            h = self.decoder(inputs_embeds=x, attention_mask=mask.to(dev), position_ids=pos.to(dev), use_cache=False,
                             output_hidden_states=True)
            logits = h.last_hidden_state[:, self.packer.start:][want.to(dev)] @ table.T
        where = torch.stack([torch.arange(n)[:, None].expand_as(lab)[want], own[want]], 1)
        return logits.float(), lab[want].to(dev), where, [v[:, self.packer.start:] for v in h.hidden_states]


def answer_loss(logits, labels, where):
    """Cross entropy in which an answer of n tokens counts sqrt(n) times one of one token, not n times.

    A list has thirty tokens: left alone, lists and captions would leave a yes or a no little say.
    """
    _, which, count = where.unique(dim=0, return_inverse=True, return_counts=True)
    weight = count[which].float().rsqrt().to(logits.device)
    return (weight * F.cross_entropy(logits, labels, reduction="none")).sum() / weight.sum()


class Oracle(nn.Module):
    """Image tokens made from the scene itself: what a perfect tower would tell the decoder.

    With it the decoder learns every question family from scenes alone, which cost nothing to draw; afterwards the
    tower and the projector learn to say the same (`bridge`).
    """

    WAVES, empty = 6, len(KINDS)

    def __init__(self, size):
        super().__init__()
        d = size.hidden
        self.kind, self.color = nn.Embedding(len(KINDS) + 1, d), nn.Embedding(len(COLORS), d)
        self.place = nn.Linear(2 * (1 + 2 * self.WAVES), d)
        for p in (self.kind.weight, self.color.weight, self.place.weight):
            nn.init.normal_(p, std=0.05)

    def forward(self, kind, color, place):
        """Targets as `pictures.targets` makes them -> [B, cells, hidden]"""
        full = (kind >= 0)[..., None]
        thing = self.kind(kind.clamp_min(0)) + self.color(color) + self.place(self.waves(place))
        return torch.where(full, thing, self.kind.weight[self.empty])

    def blurred(self, kind, color, place, noise=0.01, blur=0.2):
        """With the errors a tower makes: of the centers, as a share of the side, and of everything, as a share of its spread."""
        img = self(kind, color, place + 4 * noise * torch.randn_like(place))
        return img + blur * img.detach().std() * torch.randn_like(img)

    def waves(self, place):
        """The center in the picture as [x, y] and sines and cosines of multiples."""
        p = place[..., 2:] / 2
        return torch.cat([p] + [f(k * math.pi / 2 * p) for k in range(1, self.WAVES + 1) for f in (torch.sin, torch.cos)], -1)

    def bridge(self, img, kind, color, place):
        """How far the projector's tokens are from the oracle's, in units of the oracle's variance."""
        with torch.no_grad():
            goal = self(kind, color, place)
        return F.mse_loss(img, goal) / goal.var()
