#!/usr/bin/env bash
# Creates the Python environment in which the reference implementation runs:
#   ${TVLMC_CACHE:-$HOME/.cache/tvlmc}/oracle-venv
# Running it again does nothing when the environment is complete (--force: remake it).
#
# Needs Python 3.11 on Linux x86-64 (PYTHON names another interpreter). The tokenizers that draw.sh
# makes are trained on that interpreter's own library, so its patch release matters for them
# (3.11.7 reproduces the recorded nano tokenizer); the weights do not depend on it.
#
# torch's wheel for Linux is linked against CUDA libraries and does not import without them, also
# where only the CPU is used: about 2.8 GB installed. What it merely lists but does not load
# (cuSOLVER, NVTX, triton, the Python bindings) is left out.
set -euo pipefail

cache=${TVLMC_CACHE:-$HOME/.cache/tvlmc}
venv=$cache/oracle-venv
python=${PYTHON:-python3.11}
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
if ! command -v "$python" >/dev/null; then
  echo "setup.sh: no '$python' here; set PYTHON to a Python 3.11 interpreter" >&2
  exit 1
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then
  echo "setup.sh: $("$python" --version) is not Python 3.11; set PYTHON to one that is" >&2
  exit 1
fi

mkdir -p "$cache"
[[ -x $venv/bin/python ]] || "$python" -m venv "$venv"
# --no-deps: every package is named and pinned above.
"$venv/bin/python" -m pip install --no-deps "${pure[@]}" "${main[@]}" "${cuda[@]}"
"$venv/bin/python" -c "$check"
touch "$stamp"
echo "ready: $venv"
