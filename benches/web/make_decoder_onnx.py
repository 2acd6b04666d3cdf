#!/usr/bin/env python3
"""Write a decoder of the 0.5B model's shape with random weights as ONNX, in the form that web peers run on the processor.

  make_decoder_onnx.py CHECKPOINT OUT.onnx

Matrices are `DynamicQuantizeMatMul` (int8 weights per channel, activations quantized on the way), which is what transformers.js takes for
WebAssembly by default; attention is `GroupQueryAttention` with a cache; the head is quantized too and computes the last row only.
Sizes come from the checkpoint's config.json: no kernel's time depends on the values.
"""

import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from transformers import AutoConfig

MICROSOFT = "com.microsoft"


class Graph:
    def __init__(self):
        self.rng = np.random.default_rng(0)
        self.nodes, self.initializers = [], []

    def constant(self, name, values):
        self.initializers.append(numpy_helper.from_array(values, name))
        return name

    def node(self, op, inputs, out, domain="", **attributes):
        self.nodes.append(helper.make_node(op, inputs, out if isinstance(out, list) else [out], domain=domain, **attributes))
        return out

    def linear(self, name, x, inputs, outputs):
        weights = self.constant(f"{name}.w", self.rng.integers(-127, 128, (inputs, outputs), dtype=np.int8))
        scales = self.constant(f"{name}.s", np.full(outputs, 3e-4, np.float32))
        zeros = self.constant(f"{name}.z", np.zeros(outputs, np.int8))
        return self.node("DynamicQuantizeMatMul", [x, weights, scales, zeros], f"{name}.out", MICROSOFT)

    def biased(self, name, x, inputs, outputs):
        bias = self.constant(f"{name}.b", (self.rng.standard_normal(outputs) * 0.1).astype(np.float32))
        return self.node("Add", [self.linear(name, x, inputs, outputs), bias], f"{name}.biased")

    def norm(self, name, x, width):
        gain = self.constant(f"{name}.g", np.ones(width, np.float32))
        return self.node("SimplifiedLayerNormalization", [x, gain], name, epsilon=1e-6, axis=-1)


def main():
    checkpoint, out = sys.argv[1:3]
    config = AutoConfig.from_pretrained(checkpoint).text_config
    hidden, ffn, vocab = config.hidden_size, config.intermediate_size, config.vocab_size
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    head = hidden // heads
    g = Graph()
    angles = np.outer(np.arange(1024), 1e6 ** (-np.arange(0, head, 2) / head))
    cos, sin = g.constant("cos", np.cos(angles).astype(np.float32)), g.constant("sin", np.sin(angles).astype(np.float32))
    inputs = [
        helper.make_tensor_value_info("inputs_embeds", TensorProto.FLOAT, [1, "rows", hidden]),
        helper.make_tensor_value_info("seqlens_k", TensorProto.INT32, [1]),
        helper.make_tensor_value_info("total", TensorProto.INT32, []),
    ]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 1, vocab])]
    x = "inputs_embeds"
    for i in range(config.num_hidden_layers):
        for part in "kv":
            inputs.append(helper.make_tensor_value_info(f"past.{i}.{part}", TensorProto.FLOAT, [1, kv_heads, "past", head]))
            outputs.append(helper.make_tensor_value_info(f"present.{i}.{part}", TensorProto.FLOAT, [1, kv_heads, "total_rows", head]))
        normed = g.norm(f"{i}.norm1", x, hidden)
        q = g.biased(f"{i}.q", normed, hidden, heads * head)
        k, v = (g.biased(f"{i}.{part}", normed, hidden, kv_heads * head) for part in "kv")
        attended, *_ = g.node(
            "GroupQueryAttention", [q, k, v, f"past.{i}.k", f"past.{i}.v", "seqlens_k", "total", cos, sin],
            [f"{i}.attended", f"present.{i}.k", f"present.{i}.v"], MICROSOFT, num_heads=heads, kv_num_heads=kv_heads, do_rotary=1)
        x = g.node("Add", [x, g.linear(f"{i}.o", attended, heads * head, hidden)], f"{i}.x1")
        normed = g.norm(f"{i}.norm2", x, hidden)
        gate, up = g.linear(f"{i}.gate", normed, hidden, ffn), g.linear(f"{i}.up", normed, hidden, ffn)
        silu = g.node("Mul", [gate, g.node("Sigmoid", [gate], f"{i}.sigmoid")], f"{i}.silu")
        down = g.linear(f"{i}.down", g.node("Mul", [silu, up], f"{i}.product"), ffn, hidden)
        x = g.node("Add", [x, down], f"{i}.x2")
    last = g.node("Gather", [g.norm("norm", x, hidden), g.constant("last", np.array([-1], np.int64))], "row", axis=1)
    g.node("Identity", [g.linear("head", last, hidden, vocab)], "logits")
    graph = helper.make_graph(g.nodes, "decoder", inputs, outputs, g.initializers)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), out)


if __name__ == "__main__":
    main()
