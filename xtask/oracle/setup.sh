#!/usr/bin/env bash
# Creates the Python environment in which the reference implementation runs:
#   oracle-venv in $TVLMC_CACHE [${XDG_CACHE_HOME:-$HOME/.cache}/tvlmc]
# Running it again does nothing when the environment is complete (--force: remake it).
#
# Needs Python 3.11 to 3.13 with venv on Linux x86-64; PYTHON names an interpreter, else 3.11 is preferred. The
# tokenizers that draw.sh makes are trained on that interpreter's own library, so its patch release
# matters for them (3.11.7 reproduces the recorded nano tokenizer); the weights do not depend on it.
# Debian's Python leaves most of the package `test` out: what remains is too little text for the 0.5b
# vocabulary, and draw.sh can then make the nano and tiny checkpoints only.
#
# torch's wheel for Linux is linked against CUDA libraries and does not import without them, also
# where only the CPU is used: about 2.8 GB installed. What it merely lists but does not load
# (cuSOLVER, NVTX, triton, the Python bindings) is left out.
set -euo pipefail

cache=${TVLMC_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tvlmc}
venv=$cache/oracle-venv
stamp=$venv/complete-1

pure=(
  annotated-doc==0.0.7 annotated-types==0.8.0 anyio==4.16.0 click==8.5.1 filelock==4.2.11 fsspec==2026.9.0
  h11==0.16.0 hf-xet==1.8.0 httpcore2==2.16.2 httpx2==2.16.2 huggingface_hub==2.4.0 idna==3.20 Jinja2==3.1.6
  markdown-it-py==4.3.0 MarkupSafe==3.0.4 mdurl==0.1.2 mpmath==1.3.0 networkx==3.6.1 packaging==26.3
  pydantic==2.14.3 pydantic_core==2.50.4 Pygments==2.21.0 PyYAML==6.0.3 regex==2026.11.15 rich==15.0.0
  setuptools==84.2.1 shellingham==1.5.4 sympy==1.14.0 tqdm==4.70.1 truststore==0.10.5 typer==0.29.2
  typing-inspection==0.4.5 typing_extensions==4.16.0
)
# The same versions as the oracle's requirements.txt.
main=(
  numpy==2.4.6 pillow==13.0.0 safetensors==0.8.0 timm==1.0.31 tokenizers==0.23.3 torch==2.15.0
  torchvision==0.29.2 transformers==5.23.0
)
cuda=(
  nvidia-cublas==13.4.1.3 nvidia-cuda-cupti==13.2.86 nvidia-cuda-nvrtc==13.2.86 nvidia-cuda-runtime==13.2.86
  nvidia-cudnn-cu13==9.26.0.51 nvidia-cufft==12.2.0.57 nvidia-cufile==1.17.1.22 nvidia-cusparse==12.7.10.12
  nvidia-cusparselt-cu13==0.8.1 nvidia-nccl-cu13==2.30.7 nvidia-nvjitlink==13.5.37 nvidia-nvshmem-cu13==3.7.2
)

case "${1:-}" in
  "") ;;
  --force) rm -f "$stamp" ;;
  *) echo "usage: setup.sh [--force]" >&2; exit 2 ;;
esac

check='import torch, torchvision, timm, tokenizers, transformers; from transformers import FastVlmForConditionalGeneration'
if [[ -e $stamp ]]; then
  echo "already there: $venv"
  exit 0
fi
# ensurepip is what Debian leaves out of Python until python3-venv is installed.
usable='import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'
candidates=(python3.11 python3 python3.12 python3.13)
[[ -z ${PYTHON:-} ]] || candidates=("$PYTHON")
python=
for candidate in "${candidates[@]}"; do
  if "$candidate" -c "$usable" 2>/dev/null; then
    python=$candidate
    break
  fi
done
if [[ -z $python ]]; then
  echo "setup.sh: no Python 3.11 to 3.13 with venv here (tried: ${candidates[*]});" \
    "install one (Debian, Ubuntu: apt-get install python3-venv) or name it in PYTHON" >&2
  exit 1
fi
echo "$python: $("$python" --version)"
if ! "$python" -c 'import test.test_grammar' 2>/dev/null; then
  echo "setup.sh: this Python's library is too small to draw the 0.5b checkpoint; PYTHON may name another, as from pyenv" >&2
fi

mkdir -p "$cache"
# What an interrupted run left may lack anything.
[[ -x $venv/bin/pip ]] || "$python" -m venv --clear "$venv"
# --no-deps: every package is named and pinned above.
"$venv/bin/python" -m pip install --no-deps "${pure[@]}" "${main[@]}" "${cuda[@]}"
"$venv/bin/python" -c "$check"
touch "$stamp"
echo "ready: $venv"
