"""The operators of nhwc.c with their gradients: NHWC, float32, on the CPU."""

import ctypes
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

import torch


@lru_cache(maxsize=None)
def library():
    """nhwc.c compiled for this machine, or None where that fails (no compiler, or no AVX2)."""
    out = Path(tempfile.mkdtemp()) / "nhwc.so"
    command = ["cc", "-O3", "-march=native", "-shared", "-fPIC", "-fopenmp", "-o", out, Path(__file__).with_name("nhwc.c")]
    try:
        subprocess.run(command, check=True, capture_output=True)
        return ctypes.CDLL(str(out))
    except (OSError, subprocess.CalledProcessError) as error:
        print("nhwc.c does not compile here, plain torch operators instead:", getattr(error, "stderr", error), flush=True)
        return None


def call(name, *args):
    def convert(a):
        if a is None:
            return ctypes.c_void_p(None)
        if isinstance(a, torch.Tensor):
            assert a.is_contiguous()
            return ctypes.c_void_p(a.data_ptr())
        return ctypes.c_long(a)

    getattr(library(), name)(*map(convert, args))


class Depthwise(torch.autograd.Function):
    """x [B, H, W, Cin], w [k, k, C] with C a multiple of Cin."""

    @staticmethod
    def forward(ctx, x, w, stride):
        x, w = x.contiguous(), w.contiguous()
        b, h, wd, cin = x.shape
        k, c = w.shape[0], w.shape[2]
        ctx.dims = (b, h, wd, cin, c // cin, k, stride)
        ctx.save_for_backward(x, w)
        y = x.new_empty(b, (h - 1) // stride + 1, (wd - 1) // stride + 1, c)
        call("dw_fwd", x, w, y, *ctx.dims)
        return y

    @staticmethod
    def backward(ctx, dy):
        x, w = ctx.saved_tensors
        dx = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        gw = torch.empty_like(w)
        call("dw_bwd", x, w, dy.contiguous(), dx, gw, *ctx.dims)
        return dx, gw, None


class Stats(torch.autograd.Function):
    """Per-channel mean and (biased) variance of the last dimension."""

    @staticmethod
    def forward(ctx, x):
        c = x.shape[-1]
        n = x.numel() // c
        s, q = torch.empty(2, c, dtype=torch.float64).unbind(0)
        call("colstats", x, n, c, s, q)
        mean = s / n
        ctx.save_for_backward(x, mean)
        return mean.float(), (q / n - mean * mean).clamp_min(0).float()

    @staticmethod
    def backward(ctx, dmean, dvar):
        x, mean = ctx.saved_tensors
        c = x.shape[-1]
        n = x.numel() // c
        q = (2 * dvar / n).contiguous()
        p = (dmean / n - q * mean.float()).contiguous()
        dx = torch.empty_like(x)
        call("linear_fwd", x, p, q, dx, n, c)
        return dx


class Affine(torch.autograd.Function):
    """act(A*y + E*x + D) per channel; x and E may be None."""

    @staticmethod
    def forward(ctx, y, x, a, e, d, act):
        y, a, d = y.contiguous(), a.contiguous(), d.contiguous()
        x = None if x is None else x.contiguous()
        e = None if x is None else e.contiguous()
        c = y.shape[-1]
        ctx.act, ctx.has_x = act, x is not None
        ctx.save_for_backward(*[t for t in (y, a, d, x, e) if t is not None])
        out = torch.empty_like(y)
        call("affine_fwd", y, x, a, e, d, out, y.numel() // c, c, int(act))
        return out

    @staticmethod
    def backward(ctx, dout):
        y, a, d, *rest = ctx.saved_tensors
        x, e = rest if ctx.has_x else (None, None)
        c = y.shape[-1]
        dy, dx = torch.empty_like(y), torch.empty_like(y) if ctx.has_x else None
        da, de, dd = (torch.empty(c, dtype=torch.float64) for _ in range(3))
        call("affine_bwd", dout.contiguous(), y, x, a, e, d, dy, dx, da, de, dd, y.numel() // c, c, int(ctx.act))
        return dy, dx, da.float(), de.float() if ctx.has_x else None, dd.float(), None
