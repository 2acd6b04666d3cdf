#!/usr/bin/env python3
"""Write a checkpoint of a size that make_checkpoint.py has no preset for.

  odd.py --scripts DIR --preset NAME ...        DIR holds make_checkpoint.py; its options follow

  odd-a   widths that fill no line of 16: decoder 100 wide, 5 heads of 20, MLP 37, 437 tokens (in the llava
          layout), stages of 4 to 32 channels that grow by 2, 1, 4 and 1, a side of 100: models/nano/odd
  odd-b   the same with 6 heads of 14 over 2 of keys, three layers, stages of 3 to 96 channels
  odd-c   the published tower's proportions from 20 channels on, 7 heads of 10, each with its keys
  7b-2    the real 7B model with 2 of its 28 layers: all its widths, 1.7 G values
"""

import argparse
import os
import sys

ODD = {
    "odd-a": dict(
        image=100, layers=(1, 1, 2, 1, 1), dims=(4, 8, 8, 32, 32), clip_dim=16,
        hidden=100, heads=5, kv_heads=1, ffn=37, depth=2, max_pos=256, bpe=400, rows=437, tied=True,
    ),
    "odd-b": dict(
        image=150, layers=(1, 2, 1, 1, 2), dims=(3, 12, 12, 96, 96), clip_dim=16,
        hidden=84, heads=6, kv_heads=2, ffn=51, depth=3, max_pos=512, bpe=400, rows=449, tied=False,
    ),
    "odd-c": dict(
        image=192, layers=(1, 1, 1, 1, 1), dims=(20, 40, 80, 160, 320), clip_dim=16,
        hidden=70, heads=7, kv_heads=7, ffn=129, depth=2, max_pos=512, bpe=400, rows=403, tied=True,
    ),
    "7b-2": dict(
        image=1024, layers=(2, 12, 24, 4, 2), dims=(96, 192, 384, 768, 1536), clip_dim=768,
        hidden=3584, heads=28, kv_heads=4, ffn=18944, depth=2, max_pos=32768, bpe=151643, rows=152064, tied=False,
    ),
}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--scripts", required=True, metavar="DIR", help="folder of make_checkpoint.py")
    a, rest = ap.parse_known_args()
    sys.path.insert(0, a.scripts)
    import make_checkpoint

    make_checkpoint.PRESETS.update(ODD)
    sys.argv = [make_checkpoint.__file__, *rest]
    make_checkpoint.main()


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    main()
