#!/usr/bin/env python3
"""Write what the reference makes of small pictures: golden data for the image preprocessing.

  pixels_golden.py OUT.bin [--small] [--scripts DIR]

Runs `preprocess` of the oracle's run_reference.py (its Pillow backend) itself. The file is a sequence
of records, integers u32 little endian:

  width, height, side, policy (0 crop, 1 pad), picture (RGB bytes, height x width), result (RGB bytes, side x side)

The result is pixel_values as bytes; that those bytes give exactly pixel_values again is checked, as
float32(double(byte) * (1 / 255)). --small keeps the file under 300 KB. DIR holds run_reference.py;
default: ../shared/oracle, seen from the repository's root.
"""

import argparse
import json
import struct
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

SMALL_LIMIT = 300_000

# (width, height), side. Every size runs with both policies.
SMALL = [
    ((1, 1), 32), ((1, 7), 32), ((7, 1), 32), ((2, 2), 32), ((3, 2), 32), ((3, 100), 32), ((100, 3), 32), ((31, 31), 32), ((32, 32), 32),
    ((33, 32), 32), ((32, 33), 32), ((33, 33), 32), ((32, 31), 32), ((31, 32), 32), ((40, 39), 40), ((37, 48), 33), ((101, 37), 32),
    ((29, 71), 32), ((50, 33), 33), ((60, 40), 37), ((16, 23), 24), ((64, 48), 32), ((60, 20), 31),
]
FULL = [
    ((640, 480), 64), ((640, 480), 192), ((480, 640), 512), ((640, 480), 1024), ((256, 256), 64), ((256, 256), 256), ((256, 256), 192),
    ((255, 257), 256), ((257, 255), 256), ((255, 257), 64), ((1000, 10), 64), ((10, 1000), 64), ((1000, 10), 192), ((1, 1), 1024),
    ((101, 37), 1024), ((37, 101), 512), ((1, 7), 192), ((3, 200), 64), ((240, 144), 192), ((1280, 768), 1024), ((1024, 1024), 1024),
    ((1025, 1023), 1024), ((1023, 1025), 1024), ((2048, 1024), 1024), ((1920, 1080), 512), ((1366, 768), 192), ((511, 513), 512),
    ((999, 777), 333), ((3, 200), 32), ((200, 3), 192), ((97, 64), 48), ((128, 96), 96), ((4000, 3000), 1024),
]


def picture(rng, w, h):
    """Pictures that make a bicubic filter round and overshoot in every way."""
    y, x = np.mgrid[0:h, 0:w]
    kind = rng.integers(5)
    if kind == 0:  # noise over all values
        img = rng.integers(0, 256, (h, w, 3))
    elif kind == 1:  # black and white: overshoots on both sides
        img = 255 * rng.integers(0, 2, (h, w, 3))
    elif kind == 2:  # smooth, with a different phase in each channel
        img = np.stack([127.5 + 127.5 * np.sin(x * a + y * b + c) for a, b, c in rng.uniform(0.02, 0.9, (3, 3))], -1)
    elif kind == 3:  # boxes with hard edges
        img = np.full((h, w, 3), rng.integers(0, 256, 3))
        for _ in range(8):
            x0, y0 = rng.integers(0, w), rng.integers(0, h)
            img[y0:y0 + rng.integers(1, h + 1), x0:x0 + rng.integers(1, w + 1)] = rng.integers(0, 256, 3)
    else:  # nearly flat, where only rounding decides
        img = 100 + rng.integers(0, 2, (h, w, 3)) + np.stack([x % 2, y % 2, (x + y) % 2], -1)
    return np.clip(np.round(img), 0, 255).astype(np.uint8)


def model_dir(root, side):
    """A folder with the preprocessor_config.json of the checkpoints, for this side."""
    out = Path(root) / str(side)
    out.mkdir(exist_ok=True)
    (out / "preprocessor_config.json").write_text(json.dumps({
        "crop_size": {"height": side, "width": side}, "do_center_crop": True, "do_convert_rgb": True, "do_normalize": True,
        "do_rescale": True, "do_resize": True, "image_mean": [0.0, 0.0, 0.0], "image_std": [1.0, 1.0, 1.0], "resample": 3,
        "rescale_factor": 1 / 255, "size": {"shortest_edge": side},
    }))
    return out


def main():
    here = Path(__file__).resolve().parent
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("out", type=Path)
    ap.add_argument("--small", action="store_true", help="a file for the repository")
    ap.add_argument("--scripts", type=Path, default=here.parents[2] / "shared" / "oracle")
    a = ap.parse_args()
    if not (a.scripts / "run_reference.py").is_file():
        ap.error(f"no run_reference.py in {a.scripts}; name the folder of the oracle scripts with --scripts")
    sys.path.insert(0, str(a.scripts))
    sys.dont_write_bytecode = True
    from run_reference import preprocess

    count = 0
    with tempfile.TemporaryDirectory() as tmp, open(a.out, "wb") as f:
        for (w, h), side in SMALL if a.small else SMALL + FULL:
            # One generator per picture, so that adding a size changes no other.
            img = picture(np.random.default_rng([w, h, side]), w, h)
            for code, policy in enumerate(("crop", "pad")):
                values = preprocess(Image.fromarray(img), model_dir(tmp, side), policy, "pil").numpy()
                assert values.shape == (1, 3, side, side) and values.dtype == np.float32
                out = np.round(values.astype(np.float64) * 255).astype(np.uint8)
                assert np.array_equal((out.astype(np.float64) * (1 / 255)).astype(np.float32), values)
                f.write(struct.pack("<4I", w, h, side, code) + img.tobytes() + out[0].transpose(1, 2, 0).tobytes())
                count += 1
        size = f.tell()
    assert not a.small or size <= SMALL_LIMIT, size
    print(f"{a.out}: {count} cases, {size} bytes")


if __name__ == "__main__":
    main()
