#!/usr/bin/env bash
# Creates the Python environment for the comparison with ONNX Runtime:
#   ${TVLMC_CACHE:-$HOME/.cache/tvlmc}/bench-venv
# It uses torch and transformers of the oracle's environment (xtask/oracle/setup.sh makes that one)
# and adds only onnx and onnxruntime. Running it again does nothing when it is complete.
set -euo pipefail

cache=${TVLMC_CACHE:-$HOME/.cache/tvlmc}
oracle=$cache/oracle-venv
venv=$cache/bench-venv

if [[ ! -x $oracle/bin/python ]]; then
  echo "setup.sh: no environment in $oracle; run xtask/oracle/setup.sh first" >&2
  exit 1
fi
if [[ -e $venv/complete-1 ]]; then
  echo "already there: $venv"
  exit 0
fi
# A venv made from the oracle's interpreter has the same base Python.
[[ -x $venv/bin/python ]] || "$oracle/bin/python" -m venv "$venv"
site='import sysconfig; print(sysconfig.get_paths()["purelib"])'
"$oracle/bin/python" -c "$site" >"$("$venv/bin/python" -c "$site")/oracle.pth"
"$venv/bin/python" -m pip install --no-deps flatbuffers==25.12.19 ml_dtypes==0.6.0 onnx==1.23.2 onnxruntime==1.31.1 \
  protobuf==7.36.2
"$venv/bin/python" -c 'import onnx, onnxruntime, torch, transformers'
touch "$venv/complete-1"
echo "ready: $venv"
