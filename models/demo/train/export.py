"""Write the averaged weights as a directory that transformers reads (`fast_vlm`)."""

import json

import torch
from safetensors.torch import load_file, save_file
from timm.utils.model import reparameterize_model
from tokenizers import Tokenizer

from reader import MAX_POS, Reader, Ternary, text_config
from text import END, SPECIALS
from tower import Tower

CHAT_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}"
    "{% endif %}{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' }}{% if m['content'] is string %}"
    "{{ m['content'] }}{% else %}{% for c in m['content'] if c['type'] == 'image' %}{{ '<image>\\n' }}{% endfor %}"
    "{% for c in m['content'] if c['type'] == 'text' %}{{ c['text'] }}{% endfor %}{% endif %}{{ '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def dump(path, obj):
    path.write_text(json.dumps(obj, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def fold(tower, side):
    """The tower's inference form, in float64 until stored; refuses a fold that changes what it computes."""
    tower = tower.cpu().double().eval()
    x = torch.rand(2, 3, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    folded = reparameterize_model(tower.timm)
    with torch.no_grad():
        was = tower.timm.forward_features(x)
        gap = ((folded.forward_features(x) - was).abs().max() / was.abs().max()).item()
    if not gap < 1e-6:
        raise SystemExit(f"folding changes the features by {gap:.1e} of their largest value, expected less than 1e-6")
    return folded


def decoder_tensors(reader):
    """Names and values as stored; ternary matrices as {-1, 0, 1} times their scale."""
    for name, value in reader.state_dict().items():
        if name.endswith(".parametrizations.weight.original"):
            name, value = name.replace(".parametrizations.weight.original", ".weight"), Ternary()(value)
        yield ("model.language_model." + name[8:] if name.startswith("decoder.") else "model.multi_modal_projector." + name), value


@torch.no_grad()
def export(a):
    """Fold the tower to its inference form and write weights, tokenizer and configurations to `a.out`."""
    state = torch.load(a.work / f"joint{a.tag}.pt", map_location="cpu")
    tok, size, out = Tokenizer.from_str(state["tokenizer"]), a.size, a.out
    tower, reader = Tower(size), Reader(size, tok, a.ternary)
    tower.load_state_dict(state["average"]["tower"])
    reader.load_state_dict(state["average"]["reader"])
    tensors = {f"model.vision_tower.timm_model.{k}": v for k, v in fold(tower, size.side).state_dict().items()}
    tensors |= dict(decoder_tensors(reader))
    tensors = {k: (v.bfloat16() if v.is_floating_point() else v).contiguous().clone() for k, v in tensors.items()}
    out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, str(out / "model.safetensors"), metadata={"format": "pt"})
    write_tokenizer(out, tok)
    write_configs(out, size, tok)
    count, bytes_ = sum(v.numel() for v in tensors.values()), sum(v.nbytes for v in tensors.values())
    print(f"{out}: {len(tensors)} tensors, {count:,} values, {bytes_:,} bytes, step {state['step']}", flush=True)


def stored(folder, names):
    """The tensors of an exported model in float32 whose names begin as a key of `names`; its value takes the place of that."""
    return {new + k[len(old):]: v.float() for k, v in load_file(str(folder / "model.safetensors")).items()
            for old, new in names.items() if k.startswith(old)}


def tower_tensors(folder):
    """An exported model's tower, named as in timm."""
    return stored(folder, {"model.vision_tower.timm_model.": ""})


def reader_tensors(folder):
    """An exported model's projector and decoder, named as in `Reader`."""
    return stored(folder, {"model.language_model.": "decoder.", "model.multi_modal_projector.": ""})


def write_tokenizer(out, tok):
    tok.save(str(out / "tokenizer.json"))
    flags = dict(lstrip=False, normalized=False, rstrip=False, single_word=False, special=True)
    dump(out / "tokenizer_config.json", {
        "add_bos_token": False, "add_prefix_space": False,
        "added_tokens_decoder": {str(tok.token_to_id(s)): {"content": s, **flags} for s in SPECIALS},
        "additional_special_tokens": SPECIALS[1:3], "bos_token": None, "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False, "eos_token": END, "errors": "replace", "model_max_length": MAX_POS,
        "pad_token": SPECIALS[0], "split_special_tokens": False, "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    })
    (out / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")


def write_configs(out, size, tok):
    pad, end = tok.token_to_id(SPECIALS[0]), tok.token_to_id(END)
    dump(out / "config.json", {
        "architectures": ["FastVlmForConditionalGeneration"],
        "dtype": "bfloat16",
        "image_seq_length": size.tokens,
        "image_token_index": tok.token_to_id("<image>"),
        "model_type": "fast_vlm",
        "multimodal_projector_bias": True,
        "projector_hidden_act": "gelu",
        "text_config": {"model_type": "qwen2", "dtype": "bfloat16", **text_config(size, tok)},
        "tie_word_embeddings": True,
        "transformers_version": "5.23.0",
        "vision_config": {
            "architecture": "fastvit_mci3", "do_pooling": True, "dtype": "bfloat16", "global_pool": "avg",
            "hidden_size": size.width, "initializer_range": 0.02, "label_names": [],
            "model_args": {"inference_mode": True, **{k: list(v) for k, v in size.vision.items()}},
            "model_type": "timm_wrapper", "num_classes": 0, "num_features": size.width,
        },
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
    })
    dump(out / "generation_config.json", {
        "bos_token_id": pad, "do_sample": False, "eos_token_id": [end, pad], "pad_token_id": pad,
    })
    dump(out / "preprocessor_config.json", {
        "crop_size": {"height": size.side, "width": size.side}, "do_center_crop": True, "do_convert_rgb": True,
        "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": [0.0, 0.0, 0.0],
        "image_processor_type": "CLIPImageProcessor", "image_std": [1.0, 1.0, 1.0], "processor_class": "LlavaProcessor",
        "resample": 3, "rescale_factor": 1 / 255, "size": {"shortest_edge": size.side},
    })
    dump(out / "processor_config.json", {
        "image_token": "<image>", "num_additional_image_tokens": 0, "patch_size": 64, "processor_class": "LlavaProcessor",
        "vision_feature_select_strategy": "full",
    })
