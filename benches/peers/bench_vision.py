#!/usr/bin/env python3
"""Time a peer on an exported vision model and print JSON.

  bench_vision.py onnxruntime|openvino|openvino-bf16 MODEL --began SECONDS [--threads N] [--runs R]

MODEL is an .onnx file, or an .xml for OpenVINO. One process, one thread count, the input is fixed noise in [0, 1].
`ms` are the times of all runs after one that is not counted. `ready_ms` is from --began (seconds since the epoch, when
the process was started) until the model can be run.
"""

import argparse
import json
import time

import numpy as np


def onnxruntime_session(model, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    return f"onnxruntime {onnxruntime.__version__}", entry.shape, lambda x: session.run(None, {entry.name: x})


def openvino_session(model, threads, precision):
    import openvino

    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1,
                "INFERENCE_PRECISION_HINT": precision}
    compiled = openvino.Core().compile_model(model, "CPU", settings)
    request = compiled.create_infer_request()
    shape = [int(n) for n in compiled.input(0).shape]
    return f"openvino {openvino.__version__}", shape, lambda x: request.infer({0: x})


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("peer", choices=["onnxruntime", "openvino", "openvino-bf16"])
    ap.add_argument("model")
    ap.add_argument("--began", type=float, default=time.time())
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--runs", type=int, default=5)
    a = ap.parse_args()

    if a.peer == "onnxruntime":
        peer, shape, run = onnxruntime_session(a.model, a.threads)
    else:
        peer, shape, run = openvino_session(a.model, a.threads, "bf16" if a.peer.endswith("bf16") else "f32")
    ready = time.time() - a.began
    x = np.random.default_rng(0).random(shape, dtype=np.float32)
    run(x)
    times = []
    for _ in range(a.runs):
        start = time.perf_counter()
        run(x)
        times.append(1000 * (time.perf_counter() - start))
    print(json.dumps({"peer": peer, "input": shape, "threads": a.threads, "ready_ms": round(1000 * ready, 1),
                      "ms": [round(t, 1) for t in times]}))


if __name__ == "__main__":
    main()
