#!/usr/bin/env python3
"""Write a decoder of a checkpoint's shape with random weights, in the form that a peer converts.

  make_decoder.py CHECKPOINT OUT.gguf    f16 GGUF, for llama-quantize
  make_decoder.py CHECKPOINT OUT_DIR     bf16 Hugging Face folder with the checkpoint's tokenizer, for optimum-cli

Sizes come from the checkpoint's config.json (`text_config`), weights from a fixed seed: no kernel's time depends on
them. The GGUF gets a stand-in vocabulary of the same length, since it is only ever fed token ids.
"""

import argparse
import shutil
from pathlib import Path

import numpy as np
from transformers import AutoConfig


def gguf(config, out):
    import gguf

    rng = np.random.default_rng(0)
    hidden, vocab = config.hidden_size, config.vocab_size
    head = hidden // config.num_attention_heads
    queries, keys = config.num_attention_heads * head, config.num_key_value_heads * head

    def matrix(rows, columns):
        return (rng.standard_normal((rows, columns), dtype=np.float32) * 0.02).astype(np.float16)

    w = gguf.GGUFWriter(out, "qwen2")
    w.add_name("random")
    w.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    w.add_context_length(8192)
    w.add_embedding_length(hidden)
    w.add_block_count(config.num_hidden_layers)
    w.add_feed_forward_length(config.intermediate_size)
    w.add_head_count(config.num_attention_heads)
    w.add_head_count_kv(config.num_key_value_heads)
    w.add_layer_norm_rms_eps(1e-6)
    w.add_rope_freq_base(1e6)
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("qwen2")
    # Byte-level BPE stands on 256 printable characters: bytes that print are themselves, the others follow from 256 on.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [256 + i for i in range(256 - len(printable))]
    tokens = [chr(c) for c in printable + others]
    w.add_token_list(tokens + [f"\u0120t{i}" for i in range(len(tokens), vocab)])
    w.add_token_types([gguf.TokenType.NORMAL] * vocab)
    w.add_token_merges(["\u0120 t"])
    w.add_bos_token_id(vocab - 2)
    w.add_eos_token_id(vocab - 1)
    w.add_add_bos_token(False)
    # No output matrix: the head is the embedding.
    w.add_tensor("token_embd.weight", matrix(vocab, hidden))
    w.add_tensor("output_norm.weight", np.ones(hidden, np.float32))
    for i in range(config.num_hidden_layers):
        for name in ("attn_norm", "ffn_norm"):
            w.add_tensor(f"blk.{i}.{name}.weight", np.ones(hidden, np.float32))
        for name, rows in (("q", queries), ("k", keys), ("v", keys)):
            w.add_tensor(f"blk.{i}.attn_{name}.weight", matrix(rows, hidden))
            w.add_tensor(f"blk.{i}.attn_{name}.bias", np.zeros(rows, np.float32))
        w.add_tensor(f"blk.{i}.attn_output.weight", matrix(hidden, queries))
        w.add_tensor(f"blk.{i}.ffn_gate.weight", matrix(config.intermediate_size, hidden))
        w.add_tensor(f"blk.{i}.ffn_up.weight", matrix(config.intermediate_size, hidden))
        w.add_tensor(f"blk.{i}.ffn_down.weight", matrix(hidden, config.intermediate_size))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def folder(config, checkpoint, out):
    import torch
    from transformers import Qwen2ForCausalLM

    torch.manual_seed(0)
    config.tie_word_embeddings = True
    Qwen2ForCausalLM(config).bfloat16().save_pretrained(out)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "added_tokens.json"):
        if (checkpoint / name).is_file():
            shutil.copy(checkpoint / name, out)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("checkpoint", type=Path)
    ap.add_argument("out")
    a = ap.parse_args()
    config = AutoConfig.from_pretrained(a.checkpoint).text_config
    if a.out.endswith(".gguf"):
        gguf(config, a.out)
    else:
        folder(config, a.checkpoint, a.out)
    print(f"{a.out}: done")


if __name__ == "__main__":
    main()
