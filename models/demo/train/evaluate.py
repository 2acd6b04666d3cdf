"""Question sets, the reference's answers to them, and how many are right."""

import json
import random

import torch
from PIL import Image

from draw import sample_picture
from questions import questions
from scenes import FAMILIES
from text import AFTER, BEFORE, END

LONGEST = 256  # tokens of an answer, as `tvlmc demo` allows


def rows_of(folder):
    return [json.loads(r) for r in (folder / "questions.jsonl").read_text(encoding="utf-8").splitlines()]


def write_rows(folder, rows):
    text = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)
    (folder / "questions.jsonl").write_text(text, encoding="utf-8")


def question_set(a):
    """`a.count` questions, several to a picture, spread evenly over the families, on pictures no training draws."""
    out = a.eval
    (out / "images").mkdir(parents=True, exist_ok=True)
    share, more = divmod(a.count, len(FAMILIES))
    goal = {f: share + (i < more) for i, f in enumerate(FAMILIES)}
    rows, pictures, i = [], 0, -1
    while any(goal.values()):
        i += 1
        seed = f"{a.set}-{a.seed}/{i}"
        things, img = sample_picture(seed, side=a.size.side)
        wanted = sorted((f for f in goal if goal[f]), key=lambda f: -goal[f])[:a.per_picture]
        asked = questions(things, random.Random(seed + "/questions"), wanted)
        if len(asked) < min(3, len(wanted)):
            continue
        path = out / "images" / f"{pictures:03d}.png"
        img.save(path, optimize=True)
        if path.stat().st_size > a.max_bytes:  # keeps the set small: large noisy pictures do not compress
            path.unlink()
            continue
        pictures += 1
        for family, q, answer in asked:
            goal[family] -= 1
            rows.append(dict(image=f"images/{path.name}", question=q, answer=answer, family=family))
    write_rows(out, rows)
    size = sum(f.stat().st_size for f in out.rglob("*") if f.is_file())
    print(f"{out}: {len(rows)} questions, {pictures} pictures, {size:,} bytes", flush=True)


class Reference:
    """An exported model as transformers runs it: float32, eager attention, one question at a time."""

    def __init__(self, path):
        from tokenizers import Tokenizer
        from transformers import FastVlmForConditionalGeneration
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        self.model = FastVlmForConditionalGeneration.from_pretrained(
            path, dtype=torch.float32, attn_implementation="eager").eval()
        self.tok = Tokenizer.from_file(str(path / "tokenizer.json"))
        cfg = json.loads((path / "preprocessor_config.json").read_text())
        self.prep = CLIPImageProcessorPil(
            **{k: v for k, v in cfg.items() if k not in ("image_processor_type", "processor_class")})
        self.margin = float("inf")  # between the two best tokens, the smallest so far
        self.before = self.rows(BEFORE)

    def rows(self, text):
        ids = self.tok.encode(text, add_special_tokens=False).ids
        return self.model.get_input_embeddings()(torch.tensor([ids]))

    @torch.no_grad()
    def look(self, picture):
        pixels = self.prep(images=picture.convert("RGB"), return_tensors="pt")["pixel_values"].float()
        return self.model.model.get_image_features(pixels, return_dict=True).pooler_output

    @torch.no_grad()
    def answer(self, seen, question):
        """The greedy answer about a picture that `look` has seen."""
        core, out = self.model.model.language_model, []
        x = torch.cat([self.before, seen, self.rows(AFTER.format(question))], 1)
        o = core(inputs_embeds=x, use_cache=True)
        while len(out) < LONGEST:
            top = self.model.lm_head(o.last_hidden_state[0, -1]).topk(2)
            self.margin = min(self.margin, (top.values[0] - top.values[1]).item())
            if top.indices[0] == self.tok.token_to_id(END):
                break
            out.append(top.indices[0].item())
            o = core(input_ids=torch.tensor([out[-1:]]), past_key_values=o.past_key_values, use_cache=True)
        return self.tok.decode(out)


def answer(a):
    """Answer the question set with the exported model; each row gets `reference_answer`."""
    ref, rows, seen = Reference(a.out), rows_of(a.eval), {}
    for r in rows:
        if r["image"] not in seen:
            seen = {r["image"]: ref.look(Image.open(a.eval / r["image"]))}
        r["reference_answer"] = ref.answer(seen[r["image"]], r["question"])
    write_rows(a.eval, rows)
    print(figures(rows))
    print(f"smallest margin between the two best tokens {ref.margin:.4f}", flush=True)


def figures(rows):
    """Right answers per family as a Markdown table."""
    lines = ["| family | right | of |", "|---|---|---|"]
    families = [f for f in FAMILIES if any(r["family"] == f for r in rows)]
    for name, part in [(f, [r for r in rows if r["family"] == f]) for f in families] + [("all", rows)]:
        right = sum(r["reference_answer"] == r["answer"] for r in part)
        lines.append(f"| {name} | {right} | {len(part)} |")
    return "\n".join(lines)
