#!/usr/bin/env python3
"""Write a checkpoint of a size that make_checkpoint.py has no preset for.

  odd.py --scripts DIR --preset NAME ...        DIR holds make_checkpoint.py; its options follow

  odd-a   widths that fill no line of 16: decoder 100 wide, 5 heads of 20, MLP 37, 437 tokens (in the llava
          layout), stages of 4 to 32 channels that grow by 2, 1, 4 and 1, a side of 100: models/nano/odd
  odd-b   the same with 6 heads of 14 over 2 of keys, three layers, stages of 3 to 96 channels
  odd-c   the published tower's proportions from 20 channels on, 7 heads of 10, each with its keys
  7b-2    the real 7B model with 2 of its 28 layers: all its widths, 1.7 G values
  7b      the real 7B model, 7.7 G values: needs --by-layer where there are no 40 GB of memory

--by-layer draws and writes one weight file for each layer, and holds the embedding and the head at most (7 GB of
memory for 7B). The values are those that are drawn without it.
"""

import argparse
import math
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
ODD["7b"] = {**ODD["7b-2"], "depth": 28}


def by_layer(mc):
    """make_checkpoint's main with its own options, one part of the model after the other."""
    import torch
    from safetensors.torch import save_file

    ap = argparse.ArgumentParser()
    ap.add_argument("--preset", choices=mc.PRESETS, required=True)
    ap.add_argument("--format", choices=("hf", "llava"), required=True)
    ap.add_argument("--dtype", choices=("f32", "bf16", "f16"), default="bf16")
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--out", type=mc.Path, required=True)
    a = ap.parse_args(sys.argv[1:])
    p, draw, llava = mc.PRESETS[a.preset], mc.Draw(a.seed), a.format == "llava"
    if p["tied"]:
        ap.error("--by-layer knows untied heads only")
    name, kind = {"f32": ("float32", torch.float32), "bf16": ("bfloat16", torch.bfloat16),
                  "f16": ("float16", torch.float16)}[a.dtype]
    rows = p["rows"] if llava else math.ceil((p["rows"] + 1) / 64) * 64
    a.out.mkdir(parents=True, exist_ok=True)
    for old in a.out.glob("model*.safetensors*"):
        old.unlink()

    def text_part(layer):
        if layer is None:
            return mc.text_tensors({**p, "depth": 0}, draw, rows)
        # Its loop over the layers sees one; tables of one row are thrown away.
        mc.range = lambda _: (layer,)
        try:
            drawn = mc.text_tensors({**p, "rows": 1, "tied": True}, draw, 1)
        finally:
            del mc.range
        return {k: v for k, v in drawn.items() if k.startswith(f"layers.{layer}.")}

    def parts():
        prefix = "model.vision_tower.vision_tower.model." if llava else "model.vision_tower.timm_model."
        of = mc.llava_vision_name if llava else (lambda k: k)
        vision = {prefix + of(k): v for k, v in mc.fold_vision(mc.vision_train_form(p, draw)).items()}
        if llava:
            shape = (2 * p["dims"][-1], p["clip_dim"])
            vision[prefix + "head.proj"] = draw.normal("head.proj", shape, shape[0] ** -0.5)
        yield vision
        for layer in (None, *range(p["depth"])):
            yield {(mc.llava_name if llava else mc.hf_name)(k): v for k, v in text_part(layer).items()}

    n, index, total = p["depth"] + 2, {}, 0
    for i, part in enumerate(parts(), 1):
        for k in list(part):
            v = part.pop(k)
            part[k] = (v.to(kind) if v.is_floating_point() else v).contiguous()
        file = f"model-{i:05d}-of-{n:05d}.safetensors"
        save_file(part, str(a.out / file), metadata={"format": "pt"})
        (a.out / file).chmod(0o644)
        index.update(dict.fromkeys(part, file))
        total += sum(v.nbytes for v in part.values())
        print(f"{file}: {len(part)} tensors", flush=True)
        del part
    mc.dump(a.out / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": index})
    ids = mc.write_tokenizer(a.out, p, with_image=not llava)
    mc.write_configs(a.out, p, a.format, name, rows, ids, "reparam")
    print(f"{a.out}: {len(index)} tensors, {total:,} bytes")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--scripts", required=True, metavar="DIR", help="folder of make_checkpoint.py")
    ap.add_argument("--by-layer", action="store_true", help="one weight file for each layer, drawn in turn")
    a, rest = ap.parse_known_args()
    sys.path.insert(0, a.scripts)
    import make_checkpoint

    make_checkpoint.PRESETS.update(ODD)
    sys.argv = [make_checkpoint.__file__, *rest]
    by_layer(make_checkpoint) if a.by_layer else make_checkpoint.main()


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    main()
