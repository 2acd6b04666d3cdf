"""Start from an exported checkpoint: unfold its tower into the train form.

The export has one convolution where training has several branches with BatchNorm. Here the main branch takes over that
convolution, its BatchNorm gets the slope and offset that undo the normalization on a batch of pictures, and the other
branches start at zero. The result computes what the export computes and trains like any other tower.
"""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from timm.models.fastvit import MobileOneBlock, RepConditionalPosEnc, ReparamLargeKernelConv, RepMixer, fastvit_mci3
from torch import nn

from draw import sample_picture
from pictures import targets


def identity_kernel(w):
    k = torch.zeros_like(w)
    k[:, 0, w.shape[2] // 2, w.shape[3] // 2] = 1.0
    return k


@torch.no_grad()
def unfold(tower, folded, x):
    """Set `tower` (train form) from `folded` tensors, named as in timm; x [B, H, W, 3] sets the statistics."""
    net = tower.timm
    own = dict(net.named_parameters()) | dict(net.named_buffers())
    for name, value in folded.items():
        if name in own:
            own[name].copy_(value)
    hooks = []

    def undo(bn, offset, slope=1.0):
        def hook(_, args):
            y = args[0]
            bn.weight.copy_(slope * (y.var((0, 2, 3), unbiased=False) + bn.eps).sqrt())
            bn.bias.copy_(slope * y.mean((0, 2, 3)) + offset)
        hooks.append(bn.register_forward_pre_hook(hook))

    def zero(*norms):
        for bn in norms:
            if bn is not None:
                nn.init.zeros_(bn.weight)
                nn.init.zeros_(bn.bias)

    for name, m in net.named_modules():
        if isinstance(m, nn.BatchNorm2d) and f"{name}.weight" in folded:  # one that the export keeps
            slope = m.weight * torch.rsqrt(m.running_var + m.eps)
            undo(m, m.bias - slope * m.running_mean, slope)
        if f"{name}.reparam_conv.weight" not in folded:
            continue
        w, b = (folded[f"{name}.reparam_conv.{end}"].float() for end in ("weight", "bias"))
        if isinstance(m, RepMixer):
            m.mixer.conv_kxk[0].conv.weight.copy_(w - identity_kernel(w))
            nn.init.ones_(m.layer_scale.gamma)
            undo(m.mixer.conv_kxk[0].bn, b)
            zero(m.norm.identity, m.mixer.identity, m.mixer.conv_scale.bn)
        elif isinstance(m, MobileOneBlock):
            m.conv_kxk[0].conv.weight.copy_(w)
            undo(m.conv_kxk[0].bn, b)
            zero(m.identity, m.conv_scale.bn if m.conv_scale is not None else None)
        elif isinstance(m, ReparamLargeKernelConv):
            m.large_conv.conv.weight.copy_(w)
            undo(m.large_conv.bn, b)
            zero(m.small_conv.bn)
        elif isinstance(m, RepConditionalPosEnc):
            m.pos_enc.weight.copy_(w - identity_kernel(w))
            m.pos_enc.bias.copy_(b)
        else:
            raise SystemExit(f"{name}: a folded {type(m).__name__} cannot be unfolded")
    tower.train()
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    momentum = [m.momentum for m in norms]
    for m in norms:
        m.momentum = 1.0
    net.forward_features(x.permute(0, 3, 1, 2))
    for m, value in zip(norms, momentum):
        m.momentum = value
    for h in hooks:
        h.remove()


def read(path):
    """(tower tensors, projector and decoder tensors) of an exported directory, in float32."""
    tensors = {k: v.float() for k, v in load_file(str(path / "model.safetensors")).items()}
    cut = lambda prefix: {k[len(prefix):]: v for k, v in tensors.items() if k.startswith(prefix)}
    reader = cut("model.multi_modal_projector.") | {"decoder." + k: v for k, v in cut("model.language_model.").items()}
    return cut("model.vision_tower.timm_model."), reader


@torch.no_grad()
def adopt(reader, tensors, was, tok):
    """Set projector and decoder; rows of the embedding move to the same words of the new tokenizer."""
    table = tensors.pop("decoder.embed_tokens.weight")
    reader.load_state_dict(tensors, strict=False)
    old = was.get_vocab()
    spelled = {"\u0120color": "\u0120colour", "\u0120colors": "\u0120colours", "\u0120center": "\u0120centre", "center": "centre"}
    kept = 0
    for word, i in tok.get_vocab().items():
        j = old.get(word, old.get(spelled.get(word)))
        if j is not None:
            reader.decoder.embed_tokens.weight[i] = table[j]
            kept += 1
    return kept


@torch.no_grad()
def fit_oracle(oracle, reader, folded, size, seed, count):
    """Set the oracle to the tokens that the export's own tower and projector make of `count` pictures, by least squares.

    Then the decoder understands the oracle from the first step.
    """
    tower = fastvit_mci3(num_classes=0, inference_mode=True, **size.vision).eval()
    tower.load_state_dict(folded)
    rows, goals = [], []
    for i in range(0, count, 16):
        things, pictures = zip(*(sample_picture(f"{seed}/fit/{j}", side=size.side) for j in range(i, min(count, i + 16))))
        x = np.stack([np.asarray(p.resize((size.side,) * 2, Image.BICUBIC)) for p in pictures])
        f = tower.forward_features(torch.from_numpy(x).permute(0, 3, 1, 2) / 255).permute(0, 2, 3, 1)
        kind, color, place = targets(things, size.grid)
        full = kind >= 0
        rows.append(torch.cat([F.one_hot(kind.where(full, oracle.empty), oracle.empty + 1).float(),
                               F.one_hot(color, oracle.color.num_embeddings).float() * full[..., None],
                               oracle.waves(place) * full[..., None], full[..., None].float()], -1).flatten(0, 1))
        goals.append(reader.project(f).flatten(0, 1))
    rows, goals = torch.cat(rows).double(), torch.cat(goals).double()
    ridge = torch.eye(rows.shape[1], dtype=torch.float64)
    best = torch.linalg.solve(rows.T @ rows + ridge, rows.T @ goals).float()
    left = (rows.float() @ best - goals).square().mean() / goals.var()
    print(f"the oracle explains {100 * (1 - left):.0f} % of the tokens' variance", flush=True)
    k, c = oracle.kind.num_embeddings, oracle.color.num_embeddings
    oracle.kind.weight.copy_(best[:k])
    oracle.color.weight.copy_(best[k:k + c])
    oracle.place.weight.copy_(best[k + c:-1].T)
    oracle.place.bias.copy_(best[-1])
    quiet(oracle, reader.decoder.embed_tokens.weight)


@torch.no_grad()
def quiet(oracle, words):
    """Bring kind, color and center each to the length of a word's embedding.

    Image tokens much longer than words drown what the layers add to them: such a decoder can name what an image token
    says but hardly compare two. In the exported tokens the center is faint as well.
    """
    length = words.norm(dim=1).mean()
    spread = lambda rows: rows.std(0).norm()
    centers = 4 * torch.rand(4096, 4, generator=torch.Generator().manual_seed(0)) - 2
    factor = length / spread(oracle.kind.weight)
    oracle.kind.weight *= factor
    oracle.place.bias *= factor
    oracle.color.weight *= length / spread(oracle.color.weight)
    oracle.place.weight *= length / spread(oracle.waves(centers) @ oracle.place.weight.T)
