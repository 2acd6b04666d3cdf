"""Start from an exported checkpoint: unfold its tower into the train form.

The export has one convolution where training has several branches with BatchNorm. Here the main branch takes over that
convolution, its BatchNorm gets the slope and offset that undo the normalization on a batch of pictures, and the other
branches start at zero. The result computes what the export computes and trains like any other tower.
"""

import torch
from timm.models.fastvit import MobileOneBlock, RepConditionalPosEnc, ReparamLargeKernelConv, RepMixer
from torch import nn


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
