"""The decoder's first weights: noise, except for two things every question needs.

A question's words have to find the image tokens that say the same, two words ("red circle") at once. Left to find out by
itself how, a small decoder takes thousands of steps. So the oracle's tokens start as sums of word embeddings, and

- heads look for what is like themselves: keys and queries start as the same projection, in the rotary pairs too slow to
  tell nearby positions apart, with a preference for image tokens, and a head's output goes where its values came from;
- the first key head of the first layer looks at the tokens before, by biases in the fast rotary pairs alone: so "circle"
  after "red" says both.
"""

import torch

from reader import ROPE_THETA
from scenes import COLORS, KINDS

SLOW = 12  # rotary pairs from here on turn by less than 0.006 per token
WORD, LIKE, IMAGE, BEFORE, COPY = 0.1, 1.3, 0.45, 7.0, 0.1


@torch.no_grad()
def begin(reader, oracle, tok):
    """Set what the module's text says in a fresh `reader` and `oracle`; biases and norms else stay as they are."""
    config, gen = reader.decoder.config, torch.Generator().manual_seed(0)
    name_things(reader.decoder.embed_tokens.weight, oracle, tok, gen)
    for n, layer in enumerate(reader.decoder.layers):
        attention(layer.self_attn, config, oracle.place.bias / oracle.place.bias.norm(), n == 0, gen)
        layer.mlp.down_proj.weight *= 0.5


def name_things(table, oracle, tok, gen):
    """The oracle's kinds and colors become the embeddings of their words, places and emptiness noise as long as those."""
    d = table.shape[1]
    table.normal_(0, WORD, generator=gen)
    for weight, words in ((oracle.kind.weight, KINDS), (oracle.color.weight, COLORS)):
        for row, word in enumerate(words):
            # A word with and without a space before it starts as one.
            ids = list({tok.encode(text, add_special_tokens=False).ids[-1] for text in (word, f"the {word}")})
            both = table[ids].mean(0) * len(ids) ** 0.5
            table[ids] = both
            weight[row] = both
    length = table.norm(dim=1).mean()
    unit = lambda: (v := torch.randn(d, generator=gen)) / v.norm()
    oracle.place.weight.normal_(0, 1, generator=gen)
    centers = 4 * torch.rand(4096, 4, generator=gen) - 2
    oracle.place.weight *= length / (oracle.waves(centers) @ oracle.place.weight.T).std(0).norm()
    oracle.place.bias.copy_(unit() * length)  # what all image tokens share
    oracle.kind.weight[oracle.empty] = oracle.place.bias + unit() * length * 3 ** 0.5


def attention(att, config, image, first, gen):
    """The heads of one layer; image: the direction that image tokens share; first: whether it is the first layer."""
    d, group = config.hidden_size, config.num_attention_heads // config.num_key_value_heads
    size = d // config.num_attention_heads
    half = size // 2
    slow = torch.cat([torch.arange(SLOW, half), torch.arange(half + SLOW, size)])
    fast = torch.arange(SLOW - 3)
    turn = ROPE_THETA ** (-fast / half)
    frame = lambda: torch.linalg.qr(torch.randn(d, size, generator=gen))[0].T
    att.q_proj.bias.zero_()
    att.k_proj.bias.zero_()
    att.v_proj.bias.zero_()
    for kv in range(config.num_key_value_heads):
        rows, alike, value, before = torch.arange(kv * size, (kv + 1) * size), frame(), frame(), first and kv == 0
        key = torch.zeros(size, d)
        key[slow] = 0.02 * torch.randn(len(slow), d, generator=gen) if before else LIKE * alike[slow]
        query = key.clone()
        if before:
            att.k_proj.bias[rows[fast]] = BEFORE
        else:
            key[slow[0]], query[slow[0]] = image, 0.0
        att.k_proj.weight[rows], att.v_proj.weight[rows] = key, value
        for h in range(kv * group, (kv + 1) * group):
            mine = torch.arange(h * size, (h + 1) * size)
            att.q_proj.weight[mine] = query
            att.o_proj.weight[:, mine] = COPY * value.T
            if before:
                back = h + 1  # tokens; a digit comes two after its color, with a space between
                att.q_proj.bias[mine[fast]] = BEFORE * (back * turn).cos()
                att.q_proj.bias[mine[fast + half]] = -BEFORE * (back * turn).sin()
            else:
                att.q_proj.bias[mine[slow[0]]] = IMAGE * size ** 0.5
