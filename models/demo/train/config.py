"""The two sizes of the model; everything that depends on a size reads it from here."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """A FastVLM: FastViTHD tower, projector, Qwen2 decoder with a tied embedding."""

    name: str
    side: int  # of the picture, in pixels; one image token per 64 x 64 pixels
    layers: tuple
    dims: tuple
    hidden: int
    inner: int
    depth: int
    heads: int
    kv_heads: int
    bpe: int = 1020  # tokenizer entries besides the special tokens

    @property
    def grid(self):
        return self.side // 64

    @property
    def tokens(self):
        return self.grid * self.grid

    @property
    def width(self):
        """Channels of the tower's output."""
        return 2 * self.dims[-1]

    @property
    def named(self):
        """Layers after which a token that names things should have found them (`hints.Hints`)."""
        return self.depth // 2

    @property
    def next(self):
        """Layers after which a token should know what the token after it talks about."""
        return self.depth - 1

    @property
    def vision(self):
        return dict(layers=self.layers, embed_dims=self.dims)

    @property
    def text(self):
        return dict(hidden_size=self.hidden, intermediate_size=self.inner, num_hidden_layers=self.depth,
                    num_attention_heads=self.heads, num_key_value_heads=self.kv_heads)


SIZES = {
    "demo": Size("demo", 256, (1, 1, 2, 2, 1), (16, 32, 64, 128, 256), 256, 576, 6, 4, 2),
    "25m": Size("25m", 512, (1, 1, 2, 2, 1), (16, 32, 64, 128, 256), 512, 1408, 7, 8, 2),
}

# Budgets per phase, of a device or of a size on it. "cuda" is meant for one large GPU with a dozen cores to draw pictures; "smoke" proves that the recipe runs.
PRESETS = {
    "cpu": dict(
        vision=dict(steps=4000, batch=16, lr=1e-3), read=dict(steps=2000, batch=24, lr=3e-3),
        joint=dict(steps=1500, batch=16, lr=2e-3, vision_lr=5e-4),
        every=dict(slots=4000, workers=1, reuse=3, questions=8, calibrate=12, held=256, log=20, every=240, align=3072)),
    "cpu 25m": dict(  # with --widen: more hinting would disturb a decoder that knows what it is told
        vision=dict(steps=1200, batch=12, lr=1e-3), read=dict(steps=200, batch=24, lr=1e-3, hint=0.1),
        joint=dict(steps=800, batch=24, lr=4e-4, vision_lr=3e-4, hint=0.1),
        every=dict(slots=4000, workers=1, reuse=3, questions=8, calibrate=12, held=128, log=20, every=900, align=1536)),
    "cuda": dict(
        vision=dict(steps=8000, batch=128, lr=2e-3), read=dict(steps=8000, batch=128, lr=2e-3),
        joint=dict(steps=8000, batch=96, lr=1e-3, vision_lr=1e-3),
        every=dict(slots=20000, workers=7, reuse=3, questions=10, calibrate=12, held=1024, log=50, every=60, align=4096)),
    "smoke": dict(
        vision=dict(steps=4, batch=4, lr=1e-3), read=dict(steps=4, batch=4, lr=1e-3),
        joint=dict(steps=4, batch=4, lr=5e-4, vision_lr=5e-4),
        every=dict(slots=32, workers=1, reuse=3, questions=4, calibrate=1, held=8, log=1, every=240, align=8, count=20)),
}
