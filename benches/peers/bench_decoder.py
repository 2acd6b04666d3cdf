#!/usr/bin/env python3
"""Time OpenVINO GenAI on a decoder that optimum-cli exported, and print JSON.

  bench_decoder.py MODEL_DIR --began SECONDS [--threads N] [--prompt TOKENS] [--new TOKENS] [--runs R]

Random token ids go in, greedy decoding follows. All lists are of the runs after one that is not counted:
`prefill_ms` until the first token, `decode_ms` for each later one on average. `ready_ms` is from --began (seconds since
the epoch, when the process was started) until the model can be run.
"""

import argparse
import json
import time

import numpy as np
import openvino
import openvino_genai


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("model")
    ap.add_argument("--began", type=float, default=time.time())
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--prompt", type=int, default=290)
    ap.add_argument("--new", type=int, default=20)
    ap.add_argument("--runs", type=int, default=5)
    a = ap.parse_args()

    pipeline = openvino_genai.LLMPipeline(a.model, "CPU", INFERENCE_NUM_THREADS=a.threads, PERFORMANCE_HINT="LATENCY")
    ready = time.time() - a.began
    config = openvino_genai.GenerationConfig()
    # The first token is prefill's.
    config.max_new_tokens = a.new + 1
    config.ignore_eos = True
    config.do_sample = False
    rng = np.random.default_rng(0)
    prefill, decode = [], []
    for i in range(1 + a.runs):
        # Other ids each time: a pipeline may keep what it has seen.
        ids = openvino.Tensor(rng.integers(1000, 100000, (1, a.prompt)).astype(np.int64))
        metrics = pipeline.generate(ids, config).perf_metrics
        if i:
            prefill.append(round(metrics.get_ttft().mean, 2))
            decode.append(round(metrics.get_tpot().mean, 3))
    print(json.dumps({"peer": f"openvino_genai {openvino_genai.__version__}", "threads": a.threads, "prompt": a.prompt,
                      "new": a.new, "ready_ms": round(1000 * ready, 1), "prefill_ms": prefill, "decode_ms": decode}))


if __name__ == "__main__":
    main()
