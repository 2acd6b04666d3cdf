"""What the phases share: optimizers, the averaged weights, checkpoints that a later run resumes."""

import copy
import json
import os
import signal
import time

import torch
import torch.distributed as dist
from torch import nn


def optimizers(groups, decay, muon):
    """[AdamW] or [AdamW, Muon]; groups: (module, learning rate). Muon takes the matrices of decoder layers."""
    adam, matrices = [], []
    for module, lr in groups:
        named = [(n, p) for n, p in module.named_parameters() if p.requires_grad]
        inner = [p for n, p in named if muon and ".layers." in n and p.dim() == 2]
        rest = [p for _, p in named if all(p is not q for q in inner)]
        big = lambda p: p.numel() > 2 * max(p.shape)
        adam += [dict(params=[p for p in rest if big(p)], lr=lr, peak=lr, weight_decay=decay),
                 dict(params=[p for p in rest if not big(p)], lr=lr, peak=lr, weight_decay=0.0)]
        if inner:
            matrices.append(dict(params=inner, lr=lr, peak=lr))
    out = [torch.optim.AdamW([g for g in adam if g["params"]], betas=(0.9, 0.98), fused=True)]
    if matrices:
        out.append(Muon(matrices, dict(lr=0.0, peak=0.0, weight_decay=decay, momentum=0.95)))
    return out


class Muon(torch.optim.Optimizer):
    """Momentum made orthogonal by Newton and Schulz's iteration, scaled to AdamW's usual step size.

    torch.optim.Muon computes in bf16, which is slow on a CPU without it; this one keeps the matrices' own type. Under
    torchrun every process iterates for its share of the matrices, which takes 3.5 seconds of one core at 22 million weights.
    """

    @torch.no_grad()
    def step(self):
        for g in self.param_groups:
            shapes = {}
            for p in g["params"]:
                buf = self.state[p].setdefault("momentum", torch.zeros_like(p))
                buf.lerp_(p.grad, 1 - g["momentum"])
                shapes.setdefault(p.shape, []).append((p, p.grad.lerp(buf, g["momentum"])))
            for (rows, columns), pairs in shapes.items():
                steps, mine = torch.zeros(len(pairs), rows, columns, device=pairs[0][0].device), slice(rank(), None, ranks())
                if pairs[mine]:
                    steps[mine] = orthogonal(torch.stack([m for _, m in pairs[mine]]))
                if ranks() > 1:
                    dist.all_reduce(steps)
                for (p, _), step in zip(pairs, steps):
                    p.mul_(1 - g["lr"] * g["weight_decay"]).add_(step, alpha=-g["lr"] * 0.2 * max(rows, columns) ** 0.5)


def orthogonal(u):
    """Newton and Schulz's iteration on [n, rows, columns]: singular values go to about one."""
    tall = u.shape[1] > u.shape[2]
    u = u.mT if tall else u
    u = u / (u.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        s = u @ u.mT
        u = 3.4445 * u + (-4.775 * s + 2.0315 * s @ s) @ u
    return u.mT if tall else u


def ranks():
    return dist.get_world_size() if dist.is_initialized() else 1


def rank():
    return dist.get_rank() if dist.is_initialized() else 0


class Run:
    """One phase: steps until `steps` or until `minutes` of this call are over; its state lives in `path`.

    The learning rate warms up, stays, and falls to zero over the last 30 % of `steps`. Averaged weights are kept beside
    the trained ones: they are what is judged and handed on, and they make any moment a good one to stop.

    Under torchrun every process steps on its own pictures and all add up their gradients; the first one alone saves and reports.
    """

    def __init__(self, path, modules, groups, a, extra=None):
        self.path, self.modules, self.steps, self.minutes, self.log = path, modules, a.steps, a.minutes, a.log
        self.extra = extra or {}
        self.opts = optimizers(groups, a.decay, a.muon)
        self.params = [p for o in self.opts for g in o.param_groups for p in g["params"]]
        self.step, self.seen, self.before, self.warm = 0, 0, 0.0, min(100, max(1, a.steps // 10))
        if path.exists():
            state = torch.load(path, map_location="cpu")
            for name, m in modules.items():
                m.load_state_dict(state["modules"][name])
            for o, s in zip(self.opts, state["opts"], strict=True):
                for g, new in zip(s["param_groups"], o.param_groups):  # today's rates, not the stored ones
                    g["lr"], g["peak"], g["weight_decay"] = new["lr"], new["peak"], new["weight_decay"]
                o.load_state_dict(s)
            self.step, self.seen, self.before = state["step"], state["seen"], state["seconds"]
            print(f"{path.stem}: goes on at step {self.step}", flush=True)
        self.average = {name: copy.deepcopy(m).eval() for name, m in modules.items()}
        if path.exists():
            for name, m in self.average.items():
                m.load_state_dict(state["average"][name])
        for m in modules.values():
            m.train()
        self.start = self.saved = time.time()
        self.mean, self.first, self.ended = None, rank() == 0, False
        if ranks() > 1:  # what a phase drew before may differ from process to process
            for m in (*modules.values(), *self.average.values()):
                for v in m.state_dict().values():
                    dist.broadcast(v, 0)
        for s in (signal.SIGINT, signal.SIGTERM):
            signal.signal(s, self.stop)

    def stop(self, *_):
        """End after this step, with everything saved."""
        self.minutes = 0.0

    @property
    def seconds(self):
        return self.before + time.time() - self.start

    @property
    def late(self):
        return time.time() - self.start >= 60 * self.minutes

    def more(self):
        """Set the learning rate of the next step; False when the budget is used up."""
        left = 1 - self.step / self.steps
        factor = min(1.0, (self.step + 1) / self.warm, max(left / 0.3, 1e-3))
        for o in self.opts:
            for g in o.param_groups:
                g["lr"] = g["peak"] * factor
        return left > 0 and not (self.ended if ranks() > 1 else self.late)

    def update(self, loss, pictures):
        for o in self.opts:
            o.zero_grad()
        loss.backward()
        if ranks() > 1:
            self.add_up()
        norm = nn.utils.clip_grad_norm_(self.params, 2.0)
        if torch.isfinite(norm):
            for o in self.opts:
                o.step()
        else:
            print(f"step {self.step}: gradient {norm}, step left out", flush=True)
        self.step += 1
        self.seen += pictures * ranks()
        keep = min(0.998, 1 - 1 / (1 + self.step / 4))
        with torch.no_grad():
            for name, m in self.modules.items():
                pairs = list(zip(self.average[name].state_dict().values(), m.state_dict().values()))
                torch._foreach_lerp_([a for a, b in pairs if a.is_floating_point()],
                                     [b for a, b in pairs if a.is_floating_point()], 1 - keep)

    def add_up(self):
        """The mean of all processes' gradients; all end after the same step when one wants to."""
        grads = [p.grad for p in self.params if p.grad is not None]
        flat = torch.cat([g.flatten() for g in grads] + [torch.tensor([float(self.late)], device=grads[0].device)])
        dist.all_reduce(flat)
        self.ended = flat[-1] > 0
        for g, part in zip(grads, (flat[:-1] / ranks()).split([g.numel() for g in grads])):
            g.copy_(part.view_as(g))

    def report(self, names, values):
        """Running means; a line every `log` steps, on screen and in a .log file beside the checkpoint."""
        row = torch.stack([torch.as_tensor(v, dtype=torch.float32).detach().cpu() for v in values])
        self.mean = row if self.mean is None else self.mean.lerp(row, 0.04)
        if self.step % self.log == 0:
            self.note(step=self.step, seen=self.seen, minutes=round(self.seconds / 60, 2), cpu_minutes=round(time.process_time() / 60, 2),
                      **{n: round(v, 4) for n, v in zip(names, self.mean.tolist())})

    def note(self, **row):
        if not self.first:
            return
        print(" ".join(f"{k} {v}" for k, v in row.items()), flush=True)
        with open(self.path.with_suffix(".log"), "a") as f:
            f.write(json.dumps(row) + "\n")

    def due(self, seconds):
        """True every `seconds` and at the end, in the first process: time to save and to look at held-out pictures."""
        if not self.first or self.more() and time.time() - self.saved < seconds:
            return False
        self.saved = time.time()
        return True

    def save(self):
        dump = lambda modules: {name: m.state_dict() for name, m in modules.items()}
        state = dict(modules=dump(self.modules), average=dump(self.average), opts=[o.state_dict() for o in self.opts],
                     step=self.step, seen=self.seen, seconds=self.seconds, **self.extra)
        torch.save(state, f"{self.path}.new")
        os.replace(f"{self.path}.new", self.path)
