#!/usr/bin/env python3
"""Quantize an exported vision model to int8, with each peer's own tool.

  quantize_vision.py IN.onnx OUT.xml     for OpenVINO, by NNCF (convolutions and matrix products)
  quantize_vision.py IN.onnx OUT.onnx    for ONNX Runtime, static QDQ on every op it knows, weights per channel

Calibrated on noise: this is for timing, and no kernel's time depends on the values. It says nothing about accuracy.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import onnx


def noise(model, count):
    """`count` inputs in [0, 1] of the model's input shape."""
    shape = [d.dim_value for d in onnx.load(model, load_external_data=False).graph.input[0].type.tensor_type.shape.dim]
    rng = np.random.default_rng(0)
    return [rng.random(shape, dtype=np.float32) for _ in range(count)]


def for_openvino(source, out):
    import nncf
    import openvino

    model = openvino.Core().read_model(source)
    data = nncf.Dataset(noise(source, 2))
    model = nncf.quantize(model, data, subset_size=2, fast_bias_correction=True,
                          preset=nncf.QuantizationPreset.PERFORMANCE)
    openvino.save_model(model, out)


def for_onnxruntime(source, out):
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Noise(CalibrationDataReader):
        def __init__(self):
            self.left = [{"pixels": x} for x in noise(source, 1)]

        def get_next(self):
            return self.left.pop() if self.left else None

    with tempfile.TemporaryDirectory(dir=Path(out).parent) as folder:
        prepared = str(Path(folder) / "prepared.onnx")
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantize_static(prepared, out, Noise(), quant_format=QuantFormat.QDQ, per_channel=True,
                        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
                        calibrate_method=CalibrationMethod.MinMax)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("source")
    ap.add_argument("out")
    a = ap.parse_args()
    (for_openvino if a.out.endswith(".xml") else for_onnxruntime)(a.source, a.out)
    print(f"{a.out}: done")


if __name__ == "__main__":
    main()
