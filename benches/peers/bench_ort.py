#!/usr/bin/env python3
"""Time ONNX Runtime on an exported vision model and print JSON.

  bench_ort.py MODEL.onnx [--threads N] [--runs R] [--warmup W]

One process, one thread count; the input is fixed noise in [0, 1]. Times are milliseconds of
`session.run`; all runs are listed in order, with the median.
"""

import argparse
import json
import os
import resource
import statistics
import time

import numpy as np
import onnxruntime


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("model")
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--runs", type=int, default=5)
    ap.add_argument("--warmup", type=int, default=1)
    a = ap.parse_args()

    load = os.getloadavg()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = a.threads
    options.inter_op_num_threads = 1
    start = time.perf_counter()
    session = onnxruntime.InferenceSession(a.model, options, providers=["CPUExecutionProvider"])
    ready = time.perf_counter() - start
    entry = session.get_inputs()[0]
    x = np.random.default_rng(0).random(entry.shape, dtype=np.float32)
    times = []
    for i in range(a.warmup + a.runs):
        start = time.perf_counter()
        session.run(None, {entry.name: x})
        if i >= a.warmup:
            times.append(1000 * (time.perf_counter() - start))
    print(json.dumps({
        "peer": f"onnxruntime {onnxruntime.__version__}", "model": os.path.basename(a.model), "input": entry.shape,
        "threads": a.threads, "runs": a.runs, "warmup": a.warmup, "load_ms": round(1000 * ready, 1),
        "median_ms": round(statistics.median(times), 1), "min_ms": round(min(times), 1),
        "all_ms": [round(t, 1) for t in times],
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "loadavg_before": [round(v, 2) for v in load], "loadavg_after": [round(v, 2) for v in os.getloadavg()],
    }))


if __name__ == "__main__":
    main()
