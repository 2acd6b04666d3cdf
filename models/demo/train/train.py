#!/usr/bin/env python3
"""Make the demo model: train it, export it, ask it questions. README.md tells the whole story.

    vision     the tower on dense labels                    (vision.pt)
    read       the decoder on scenes, without pictures      (read.pt)
    joint      both together                                (joint.pt)
    export     the averaged weights for transformers        (--out)
    questions  a question set with pictures                 (--eval)
    answer     the exported model's answers to it, and how many are right
    sheet      the contact sheet of pictures and answers    (--sheet)
    check      that the fast paths compute what the plain ones do
    all        everything above, in a sensible order

A phase that finds its own checkpoint goes on from there; SIGINT and SIGTERM end it with everything saved. On a CPU
`torchrun --nproc-per-node CORES train.py PHASE --threads 1 ...` is faster than one process with as many threads.
"""

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
import torch.distributed as dist

import check
import evaluate
import export
import phases
import sheet
from config import PRESETS, SIZES
from loop import rank
from widen import check_widening

TASKS = {
    "check": check.check, "vision": phases.vision, "read": phases.read, "joint": phases.joint, "export": export.export,
    "questions": evaluate.question_set, "answer": evaluate.answer, "sheet": sheet.sheet,
}


def arguments():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("task", choices=(*TASKS, "all"))
    ap.add_argument("--work", type=Path, required=True, help="folder of checkpoints, logs and the picture pool")
    ap.add_argument("--size", choices=SIZES, default="demo")
    ap.add_argument("--ternary", action="store_true", help="ternary decoder matrices, from the float joint.pt of the same folder")
    ap.add_argument("--smoke", action="store_true", help="a handful of steps: proves that everything runs, trains nothing")
    ap.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--minutes", type=float, default=1e9, help="end each phase of this call after so long")
    ap.add_argument("--warm", type=Path, help="exported checkpoint whose tower vision starts from")
    ap.add_argument("--widen", type=Path, help="exported demo whose decoder a larger size starts from")
    ap.add_argument("--data", type=Path, help="picture pool (default WORK/data)")
    ap.add_argument("--out", type=Path, help="exported model (default WORK/model)")
    ap.add_argument("--eval", type=Path, help="question set (default WORK/eval)")
    ap.add_argument("--sheet", type=Path, help="contact sheet (default WORK/sheet.jpg)")
    ap.add_argument("--set", default="eval", help="name of the question set, part of its seed")
    ap.add_argument("--adam", dest="muon", action="store_false", help="AdamW for the decoder too, instead of Muon")
    preset = PRESETS["cuda"]["joint"] | PRESETS["cuda"]["every"]
    numbers = preset | dict(decay=0.03, bridge=0.5, cell=0.5, hint=0.5, count=300, per_picture=8, max_bytes=150000, tiles=24)
    for name, value in numbers.items():
        ap.add_argument("--" + name.replace("_", "-"), type=type(value))
    return ap.parse_args(), numbers


def check_size(work, size):
    """A work folder belongs to the size whose name its first call left in it."""
    path, new = work / "size", work / "size.new"
    if path.exists():
        was = path.read_text(encoding="utf-8").strip()
        if was != size.name:
            raise SystemExit(f"{path}: {work} holds size {was}, asked for {size.name}; use --size {was}, or another --work")
    elif rank() == 0:  # the others may be reading: it is there whole or not at all
        new.write_text(size.name + "\n", encoding="utf-8")
        os.replace(new, path)


def main():
    given, numbers = arguments()
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("gloo")
    given.size, given.tag = SIZES[given.size], "-ternary" if given.ternary else ""
    for option, folder in ("--widen", given.widen), ("--warm", given.warm):
        missing = [n for n in ("model.safetensors", "tokenizer.json", "config.json") if folder and not (folder / n).is_file()]
        if missing:
            raise SystemExit(f"{option} {folder}: no {', '.join(missing)} there; expected an exported model, such as models/demo")
    if given.widen:
        check_widening(given.size, SIZES["demo"], given.widen)
    given.data = given.data or given.work / "data"
    given.out = given.out or given.work / f"model{given.tag}"
    given.eval = given.eval or given.work / f"eval{given.tag}"
    given.sheet = given.sheet or given.work / f"sheet{given.tag}.jpg"
    given.work.mkdir(parents=True, exist_ok=True)
    check_size(given.work, given.size)
    torch.set_num_threads(given.threads)
    os.environ["OMP_NUM_THREADS"] = str(given.threads)  # for nhwc.c, which is loaded later
    kind = "smoke" if given.smoke else torch.device(given.device).type
    preset = PRESETS.get(f"{kind} {given.size.name}" if given.widen else kind, PRESETS[kind])
    for task in TASKS if given.task == "all" else [given.task]:
        a, start = argparse.Namespace(**vars(given)), time.time()
        for name, value in (numbers | preset["every"] | preset.get(task, {})).items():
            if getattr(a, name) is None:
                setattr(a, name, value)
        TASKS[task](a)
        print(f"-- {task}: {time.time() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
