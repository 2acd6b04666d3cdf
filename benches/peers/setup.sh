#!/usr/bin/env bash
# Installs the peers that `cargo xtask bench` and `cargo xtask bench-peers` run beside ours:
#   $cache/peers-venv        Python packages of requirements.txt, on top of the reference implementation's
#                            environment (xtask/oracle/setup.sh makes that one), whose torch exports the models
#   $cache/peers/llama.cpp   built for this processor from the sources inside llama-cpp-python's source
#                            distribution; needs a C++ compiler
# where $cache is $TVLMC_CACHE [${XDG_CACHE_HOME:-$HOME/.cache}/tvlmc]. Running it again does nothing where it is complete.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${TVLMC_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tvlmc}
oracle=$cache/oracle-venv
venv=$cache/peers-venv
llama=$cache/peers/llama.cpp
package=llama-cpp-python==0.3.36

if [[ ! -x $oracle/bin/python ]]; then
  echo "setup.sh: no environment in $oracle; run xtask/oracle/setup.sh first" >&2
  exit 1
fi

# Other pins, other environment: the stamp is the list it was made from.
if ! cmp -s "$here/requirements.txt" "$venv/complete"; then
  # A venv made from the oracle's interpreter has the same base Python.
  [[ -x $venv/bin/python ]] || "$oracle/bin/python" -m venv "$venv"
  site='import sysconfig; print(sysconfig.get_paths()["purelib"])'
  "$oracle/bin/python" -c "$site" >"$("$venv/bin/python" -c "$site")/oracle.pth"
  "$venv/bin/python" -m pip install --no-deps -r "$here/requirements.txt"
  "$venv/bin/python" -c 'import gguf, nncf, onnx, onnxruntime, openvino, openvino_genai, optimum.intel, torch, transformers'
  cp "$here/requirements.txt" "$venv/complete"
fi
echo "ready: $venv"

stamp=$llama/complete-$package
if [[ ! -e $stamp ]]; then
  if ! command -v c++ >/dev/null; then
    echo "setup.sh: no C++ compiler here (Debian: apt-get install g++); llama.cpp cannot be built" >&2
    exit 1
  fi
  mkdir -p "$llama"
  # Unpacking only: pip asks the package for its metadata, which needs its build tools but builds nothing.
  "$venv/bin/python" -m pip download --no-deps --no-binary llama-cpp-python --dest "$llama" "$package"
  tar -xzf "$llama"/llama_cpp_python-*.tar.gz -C "$llama" --strip-components 1
  PATH=$venv/bin:$PATH cmake -S "$llama/vendor/llama.cpp" -B "$llama/build" -G Ninja -DCMAKE_BUILD_TYPE=Release \
    -DGGML_NATIVE=ON -DLLAMA_CURL=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF
  PATH=$venv/bin:$PATH ninja -C "$llama/build" llama-bench llama-quantize llama-completion
  touch "$stamp"
fi
echo "ready: $llama/build/bin"
