"""The vision tower, and the head that gives it dense labels."""

import math

import torch
import torch.nn.functional as F
from timm.models.fastvit import fastvit_mci3
from torch import nn

from kernels import Affine, Depthwise, Stats, library
from scenes import COLORS, KINDS


def stats(x, training):
    return Stats.apply(x) if training else None


def bn(m, st, n, scale=None):
    """(slope, offset) of BatchNorm `m` for data with statistics `st`, optionally times `scale` first."""
    if st is None:
        mean, var = m.running_mean, m.running_var
    else:
        mean, var = st
        if scale is not None:
            mean, var = mean * scale, var * scale * scale
        with torch.no_grad():
            m.running_mean.lerp_(mean, m.momentum)
            m.running_var.lerp_(var * (n / (n - 1)), m.momentum)
            m.num_batches_tracked += 1
    slope = m.weight * torch.rsqrt(var + m.eps)
    return slope, m.bias - slope * mean


def depthwise(conv, x):
    return Depthwise.apply(x, conv.weight[:, 0].permute(1, 2, 0), conv.stride[0])


def pixels(x):
    return x.numel() // x.shape[-1]


class Tower(nn.Module):
    """timm's train-form FastViT; on the CPU it is evaluated in NHWC with the operators of nhwc.c."""

    def __init__(self, size):
        super().__init__()
        self.timm = fastvit_mci3(num_classes=0, layer_scale_init_value=0.2, **size.vision)
        for name, p in self.timm.named_parameters():
            if name.endswith((".fc1.weight", ".fc2.weight")) and "blocks" in name:
                nn.init.normal_(p, std=1.5 / math.sqrt(p.shape[1]))
            elif name.endswith((".qkv.weight", ".proj.weight")) and p.dim() == 2:
                nn.init.normal_(p, std=1.0 / math.sqrt(p.shape[1]))

    def forward(self, x):
        """x [B, H, W, 3] in 0..1 -> [B, h, w, C]"""
        if x.is_cuda or library() is None:
            x = x.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cuda", torch.bfloat16, enabled=x.is_cuda):
                return self.timm.forward_features(x).permute(0, 2, 3, 1).float()
        return self.nhwc(x)

    def nhwc(self, x):
        m, t = self.timm, self.training
        b, h, w, _ = x.shape
        c0 = m.stem[0].conv_kxk[0]
        p = F.pad(x, (0, 0, 1, 1, 1, 1))
        wp = w + 2
        cols = p.as_strided((b, h // 2, w // 2, 3, 9), ((h + 2) * wp * 3, wp * 6, 6, wp * 3, 1)).reshape(b, h // 2, w // 2, 27)
        y = F.linear(cols, c0.conv.weight.permute(0, 2, 3, 1).reshape(-1, 27))
        a, d = bn(c0.bn, stats(y, t), pixels(y))
        x = Affine.apply(y, None, a, None, d, True)
        x = self.mobileone(m.stem[1], x)
        x = self.mobileone(m.stem[2], x)
        for s in m.stages:
            if not isinstance(s.downsample, nn.Identity):
                x = self.large_kernel(s.downsample.proj[0], x)
                x = self.mobileone(s.downsample.proj[1], x)
            if not isinstance(s.pos_emb, nn.Identity):
                conv = s.pos_emb.pos_enc
                one = torch.ones(x.shape[-1])
                x = Affine.apply(depthwise(conv, x), x, one, one, conv.bias, False)
            for blk in s.blocks:
                x = self.attention(blk, x) if hasattr(blk, "norm") else self.repmixer(blk, x)
        f = m.final_conv
        y, xin, a, e, d = self.branches(f, x)
        y = Affine.apply(y, xin, a, e, d, False)
        g = y.mean((1, 2))
        g = F.relu(F.linear(g, f.se.fc1.weight.flatten(1), f.se.fc1.bias))
        g = torch.sigmoid(F.linear(g, f.se.fc2.weight.flatten(1), f.se.fc2.bias))
        return F.gelu(y * g[:, None, None])

    def branches(self, m, x, extra=None):
        """All branches of a MobileOne block as (y, x, A, E, D): their sum is A*y + E*x + D."""
        conv = m.conv_kxk[0].conv
        y = F.linear(x, conv.weight.flatten(1)) if conv.groups == 1 else depthwise(conv, x)
        a, d = bn(m.conv_kxk[0].bn, stats(y, self.training), pixels(y))
        e = None
        if m.identity is not None or m.conv_scale is not None:
            if x.shape[-1] != y.shape[-1]:
                x = x.repeat_interleave(y.shape[-1] // x.shape[-1], -1)
            st, n = extra or stats(x, self.training), pixels(x)
            e = 0
            if m.identity is not None:
                se, sd = bn(m.identity, st, n)
                e, d = e + se, d + sd
            if m.conv_scale is not None:
                k = m.conv_scale.conv.weight.flatten()
                se, sd = bn(m.conv_scale.bn, st, n, k)
                e, d = e + se * k, d + sd
        return y, (x if e is not None else None), a, e, d

    def mobileone(self, m, x):
        return Affine.apply(*self.branches(m, x), True)

    def large_kernel(self, m, x):
        big, small = depthwise(m.large_conv.conv, x), depthwise(m.small_conv.conv, x)
        a, d = bn(m.large_conv.bn, stats(big, self.training), pixels(big))
        e, d2 = bn(m.small_conv.bn, stats(small, self.training), pixels(small))
        return Affine.apply(big, small, a, e, d + d2, True)

    def mlp(self, m, gamma, x):
        y = depthwise(m.conv.conv, x)
        a, d = bn(m.conv.bn, stats(y, self.training), pixels(y))
        w1, w2 = m.fc1.weight.flatten(1), m.fc2.weight.flatten(1)
        h = F.linear(y, w1 * a)
        h = Affine.apply(h, None, torch.ones(h.shape[-1]), None, m.fc1.bias + w1 @ d, True)
        g = gamma.flatten()
        return Affine.apply(F.linear(h, w2), x, g, torch.ones(x.shape[-1]), g * m.fc2.bias, False)

    def repmixer(self, blk, x):
        t = blk.token_mixer
        st = stats(x, self.training)
        y, x, a, e, d = self.branches(t.mixer, x, st)
        ne, nd = bn(t.norm.identity, st, pixels(x))
        g = t.layer_scale.gamma.flatten()
        x = Affine.apply(y, x, g * a, 1 + g * (e - ne), g * (d - nd), False)
        return self.mlp(blk.mlp, blk.layer_scale.gamma, x)

    def attention(self, blk, x):
        b, h, w, c = x.shape
        t = blk.token_mixer
        n = F.layer_norm(x, (c,), blk.norm.weight, blk.norm.bias, blk.norm.eps).reshape(b, h * w, c)
        q, k, v = t.qkv(n).reshape(b, h * w, 3, t.num_heads, t.head_dim).permute(2, 0, 3, 1, 4)
        o = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, h, w, c)
        g = blk.layer_scale_1.gamma.flatten()
        x = Affine.apply(F.linear(o, t.proj.weight), x, g, torch.ones(c), g * t.proj.bias, False)
        return self.mlp(blk.mlp, blk.layer_scale_2.gamma, x)


class CellHead(nn.Module):
    """What is in each cell: presence, kind, color, and the center within the cell and within the picture.

    A linear map, so all of this lies in plain sight in the image token; dropped at export.
    """

    def __init__(self, size):
        super().__init__()
        self.parts = (1, len(KINDS), len(COLORS), 4)
        self.fc = nn.Linear(size.width, sum(self.parts))

    def forward(self, f):
        return self.fc(f.flatten(1, 2)).split(self.parts, -1)

    def loss(self, f, kind, color, place):
        """Loss, and [presence, kind, color] accuracy and mean distance; targets as `pictures.targets` makes them."""
        here, what, hue, where = self(f)
        full = kind >= 0
        l_here = F.binary_cross_entropy_with_logits(here[..., 0], full.float())
        l_what = F.cross_entropy(what[full], kind[full], label_smoothing=0.02)
        l_hue = F.cross_entropy(hue[full], color[full], label_smoothing=0.02)
        l_where = F.smooth_l1_loss(where[full], place[full], beta=0.05)
        with torch.no_grad():
            acc = [((here[..., 0] > 0) == full).float().mean(), (what[full].argmax(-1) == kind[full]).float().mean(),
                   (hue[full].argmax(-1) == color[full]).float().mean(), (where[full] - place[full]).abs().mean()]
        return 2 * l_here + l_what + 0.5 * l_hue + 2 * l_where, torch.stack(acc)
