"""Fresh pictures without end: workers keep refilling a pool that training draws from."""

import json
import multiprocessing as mp
import os
import signal
import time

import numpy as np
import torch
from PIL import Image

from draw import sample_picture
from scenes import COLORS, KINDS, Thing

MOST = 16  # things in one picture
COLOR_NAMES = tuple(COLORS)
SHIFT = 14 / 256  # largest move of the augmentation
BORDER = 0.02  # a center this close to a cell's edge, as a share of the side, may count as beyond it


class Pool:
    """`slots` pictures on disk with their scenes; slot i holds the newest picture n with n % slots == i.

    Workers draw picture after picture while each has been used `reuse` times on average. Every picture is a function of
    its number, but which slot holds which picture when a batch is drawn depends on the machine's speed.
    """

    def __init__(self, root, packed, side, slots, workers, reuse, seed):
        name = "packed" if packed else "plain"
        root.mkdir(parents=True, exist_ok=True)
        self.packed, self.side, self.slots, self.reuse, self.seed = packed, side, slots, reuse, f"{seed}/{name}"
        new = not (root / f"{name}.json").exists()
        if not new:
            meta = json.loads((root / f"{name}.json").read_text())
            if meta != [side, slots, self.seed]:
                raise SystemExit(f"{root}/{name}.json describes pool {meta}, this run needs {[side, slots, self.seed]}: "
                                 "use another --data folder")
        files = [(root / f"{name}.{end}", dtype, shape) for end, dtype, shape in (
            ("pixels", np.uint8, (slots, side, side, 3)), ("scenes", np.float32, (slots, MOST, 5)),
            ("stamp", np.int64, (slots,)))]
        self.pixels, self.scenes, self.stamp = (
            np.memmap(path, dtype, "w+" if new else "r+", shape=shape) for path, dtype, shape in files)
        if new:
            self.stamp[:] = -1
            (root / f"{name}.json").write_text(json.dumps([side, slots, self.seed]))
        self.first = int(self.stamp.max()) + 1
        self.used = mp.Value("q", 0)
        self.workers = [mp.Process(target=self.draw, args=(k, workers), daemon=True) for k in range(workers)]
        for w in self.workers:
            w.start()

    def draw(self, which, of):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the trainer's own handler came along with the fork
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        torch.set_num_threads(1)
        for n in range(self.first + which, 1 << 62, of):
            # Until the pool is full every picture is welcome.
            while n >= self.slots and (n - self.first) * self.reuse > self.used.value:
                time.sleep(0.05)
                if os.getppid() == 1:
                    return
            things, img = sample_picture(f"{self.seed}/{n}", self.packed, self.side)
            i = n % self.slots
            self.stamp[i] = -1
            self.pixels[i] = np.asarray(img.resize((self.side, self.side), Image.BICUBIC))
            self.scenes[i] = -1
            for k, t in enumerate(things[:MOST]):
                self.scenes[i, k] = KINDS.index(t.kind), COLOR_NAMES.index(t.color), t.x, t.y, t.r
            self.stamp[i] = n

    def close(self):
        for w in self.workers:
            w.terminate()
            w.join()

    def wait(self, least):
        """Until there are `least` pictures."""
        while (have := int((self.stamp >= 0).sum())) < min(least, self.slots):
            print(f"waiting for pictures: {have}", flush=True)
            time.sleep(5)

    def batch(self, size, rng, augment=True):
        """(uint8 pictures [size, side, side, 3], scenes); each moved a little when `augment`."""
        images, scenes = [], []
        while len(images) < size:
            i = rng.randrange(self.slots)
            stamp = int(self.stamp[i])
            if stamp < 0:
                continue
            img, row = np.array(self.pixels[i]), np.array(self.scenes[i])
            if int(self.stamp[i]) != stamp:  # replaced meanwhile
                continue
            things = [Thing(KINDS[int(k)], COLOR_NAMES[int(c)], *map(float, p)) for k, c, *p in row if k >= 0]
            if augment:
                img, things = shifted(img, things, rng)
            images.append(img)
            scenes.append(things)
        with self.used.get_lock():
            self.used.value += size
        return torch.from_numpy(np.stack(images)), scenes

    def drawn(self):
        return int(self.stamp.max()) + 1


def shifted(img, things, rng):
    """The picture moved by a few pixels such that nothing leaves it, and no two things come to share a cell."""
    side = img.shape[0]
    most = round(SHIFT * side)
    low = [min(most, int(min(getattr(t, k) - t.r for t in things) * side)) for k in "xy"]
    high = [min(most, int(min(1 - getattr(t, k) - t.r for t in things) * side)) for k in "xy"]
    dx, dy = (rng.randint(-max(0, a), max(0, b)) for a, b in zip(low, high))
    moved = [Thing(t.kind, t.color, t.x + dx / side, t.y + dy / side, t.r) for t in things]
    if len({t.cell for t in moved}) < len(moved):
        return img, things
    pad = np.pad(img, ((most, most), (most, most), (0, 0)), "edge")
    return pad[most - dy:most - dy + side, most - dx:most - dx + side], moved


def exposed(x, generator):
    """uint8 [B, H, W, 3] -> floats in 0..1 with a small change of gain and of each channel's gain."""
    n = x.shape[0]
    gain = 1 + 0.07 * (2 * torch.rand(n, 1, 1, 3, generator=generator) - 1).to(x.device)
    gain = gain * (1 + 0.08 * (2 * torch.rand(n, 1, 1, 1, generator=generator) - 1).to(x.device))
    return (x.float() * (gain / 255)).clamp_(max=1.0)


def seats(scenes, grid, choose=None):
    """For each scene the cells of its things; no two things share one.

    On which side of an edge a center within BORDER of it lies is not to be seen: such a thing may sit in a free cell
    beyond the edge. `choose` takes the scene's number and the cells it may have; without it a thing sits where it is.
    """
    out = []
    cell = lambda x, y: min(grid - 1, max(0, int(y * grid))) * grid + min(grid - 1, max(0, int(x * grid)))
    for b, things in enumerate(scenes):
        row = [cell(t.x, t.y) for t in things]
        for k, t in enumerate(things if choose else ()):
            near = {cell(t.x + dx, t.y + dy) for dx in (-BORDER, BORDER) for dy in (-BORDER, BORDER)}
            if free := sorted(near - set(row)):
                row[k] = choose(b, [*free, row[k]])
        out.append(row)
    return out


def targets(scenes, grid, cells=None):
    """Dense labels [B, cells]: kind (-1: empty), color, and [B, cells, 4] the center in its cell and in the picture."""
    n = len(scenes)
    kind, color = np.full((n, grid * grid), -1), np.zeros((n, grid * grid), np.int64)
    place = np.zeros((n, grid * grid, 4), np.float32)
    for b, (things, row) in enumerate(zip(scenes, cells or seats(scenes, grid))):
        for t, i in zip(things, row):
            row, column = divmod(i, grid)
            kind[b, i], color[b, i] = KINDS.index(t.kind), COLOR_NAMES.index(t.color)
            place[b, i] = t.x * grid - column, t.y * grid - row, 4 * t.x - 2, 4 * t.y - 2
    return torch.from_numpy(kind), torch.from_numpy(color), torch.from_numpy(place)
