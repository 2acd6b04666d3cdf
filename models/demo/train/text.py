"""The tokenizer, and questions packed for training."""

import random
import sysconfig
from pathlib import Path

import torch

from config import Size
from questions import questions
from scenes import FAMILIES, sample_scene

SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>"]
END = "<|im_end|>"
BEFORE = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
AFTER = "\n{}<|im_end|>\n<|im_start|>assistant\n"
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def train_tokenizer(size: Size):
    """Byte-level BPE with Qwen2's pre-tokenizer: every word of the world is one token, the rest is general English."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    rng = random.Random(0)
    text = [BEFORE + AFTER.format("Describe the image.")] * 2000
    for _ in range(4000):
        text += [f"{q}\n{answer}" for _, q, answer in questions(sample_scene(rng), rng, FAMILIES)]
    general = (Path(sysconfig.get_paths()["stdlib"]) / "pydoc_data" / "topics.py").read_text(encoding="utf-8")
    text.append(general[:400000])
    tok = Tokenizer(models.BPE())
    tok.normalizer = normalizers.NFC()
    level = dict(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated"), pre_tokenizers.ByteLevel(**level)])
    tok.post_processor = processors.ByteLevel(**level)
    tok.decoder = decoders.ByteLevel(**level)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tok.train_from_iterator(text, trainers.BpeTrainer(vocab_size=size.bpe, show_progress=False, initial_alphabet=alphabet))
    assert tok.get_vocab_size() == size.bpe
    tok.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIALS])
    return tok


class Packer:
    """Questions about one picture as one sequence after the shared prefix and the image tokens.

    Every question sees the prefix and itself, at the positions it would have alone, so the decoder learns exactly what
    it computes at inference.
    """

    def __init__(self, tok, tokens):
        self.tok, self.cache = tok, {}
        self.before = tok.encode(BEFORE, add_special_tokens=False).ids
        self.start = len(self.before) + tokens

    def encoded(self, question, answer):
        key = question, answer
        if key not in self.cache:
            if len(self.cache) > 200000:
                self.cache.clear()
            self.cache[key] = [self.tok.encode(text, add_special_tokens=False) for text in (AFTER.format(question), answer + END)]
        return self.cache[key]

    def pack(self, batch):
        """batch: one list of (question, answer) per picture.

        Returns ids, positions, labels (-1: none), owner and the attention mask; labels[b, i] is the token after i, and
        owner[b, i] tells which question (from 1) token i belongs to.
        """
        rows = []
        for items in batch:
            ids, pos, lab, own = [], [], [], []
            for k, (q, answer) in enumerate(items, 1):
                qi, ai = (e.ids for e in self.encoded(q, answer))
                n = len(qi) + len(ai) - 1
                ids += qi + ai[:-1]
                pos += range(self.start, self.start + n)
                lab += [-1] * (len(qi) - 1) + ai
                own += [k] * n
            rows.append((ids, pos, lab, own))
        n, t, s = len(rows), max(len(r[0]) for r in rows), self.start
        ids, pos, lab, own = (torch.full((n, t), fill) for fill in (0, 0, -1, -1))
        for b, row in enumerate(rows):
            for dst, src in zip((ids, pos, lab, own), row):
                dst[b, :len(src)] = torch.tensor(src)
        pos = torch.cat([torch.arange(s).expand(n, s), pos], 1)
        full = torch.cat([torch.zeros(n, s, dtype=torch.int64), own], 1)
        mask = (full[:, None, :] == 0) | (full[:, None, :] == full[:, :, None])
        return ids, pos, lab, own, (mask & torch.ones(s + t, s + t, dtype=torch.bool).tril())[:, None]


def ask(things, rng, count, hits=None):
    """Up to `count` (family, question, answer), no question twice; hits: share right per family, the worse are asked more."""
    weights = [1.15 - (hits or {}).get(f, 0.0) for f in FAMILIES]
    found = {qa[1]: qa for qa in questions(things, rng, rng.choices(FAMILIES, weights, k=count + 3))}
    return list(found.values())[:count] or questions(things, rng, ("exists",))


def score(logits, labels, where, asked):
    """For each family a list of: was every token of the answer the most likely one?"""
    wrong = {tuple(w) for w, bad in zip(where.tolist(), (logits.argmax(-1) != labels).tolist()) if bad}
    out = {}
    for b, row in enumerate(asked):
        for k, (family, _, _) in enumerate(row, 1):
            out.setdefault(family, []).append((b, k) not in wrong)
    return out
