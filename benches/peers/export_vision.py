#!/usr/bin/env python3
"""Export the vision tower and projector of a FastVLM checkpoint (Hugging Face layout) to ONNX, float32.

  export_vision.py CHECKPOINT OUT.onnx [--opset 17]

Input `pixels` [1, 3, R, R] with R from preprocessor_config.json (1024 for the public models), values in
[0, 1]; output `tokens` [1, N, D], the image tokens in the decoder's space. Where CHECKPOINT has
reference/image.safetensors, the exported graph is run on its picture and compared with it.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from safetensors import safe_open
from transformers import FastVlmForConditionalGeneration


class Vision(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.tower = model.model.vision_tower
        self.projector = model.model.multi_modal_projector

    def forward(self, pixels):
        features = self.tower.timm_model.forward_features(pixels)
        return self.projector(features.flatten(2).transpose(1, 2))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("checkpoint", type=Path)
    ap.add_argument("out", type=Path)
    ap.add_argument("--opset", type=int, default=17)
    a = ap.parse_args()
    side = json.loads((a.checkpoint / "preprocessor_config.json").read_text())["crop_size"]["height"]
    model = FastVlmForConditionalGeneration.from_pretrained(a.checkpoint, dtype=torch.float32, attn_implementation="eager")
    vision = Vision(model.eval()).eval()
    a.out.parent.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        torch.onnx.export(vision, (torch.rand(1, 3, side, side),), str(a.out), opset_version=a.opset, dynamo=False,
                          input_names=["pixels"], output_names=["tokens"], do_constant_folding=True)
    print(f"{a.out}: {a.out.stat().st_size:,} bytes, {sum(p.numel() for p in vision.parameters()):,} values")

    reference = a.checkpoint / "reference" / "image.safetensors"
    if reference.is_file():
        with safe_open(str(reference), "np") as f:
            pixels, want = f.get_tensor("pixel_values"), f.get_tensor("projector")
        got = onnxruntime.InferenceSession(str(a.out), providers=["CPUExecutionProvider"]).run(None, {"pixels": pixels})[0]
        print(f"against the reference: largest difference {np.abs(got - want).max():.3g} where the largest value is "
              f"{np.abs(want).max():.3g}")


if __name__ == "__main__":
    main()
