#!/usr/bin/env bash
# Draws the seeded test checkpoints and what the reference implementation computes with them.
#
#   draw.sh [--scripts DIR] [--force] NAME...|all|list
#
# Each goes to oracle/NAME in $TVLMC_CACHE [${XDG_CACHE_HOME:-$HOME/.cache}/tvlmc] with image.png and
# reference/{image,text}.safetensors beside the weights. What is complete is left alone (--force:
# drawn again). DIR holds make_checkpoint.py and run_reference.py; default: ../shared/oracle,
# seen from the repository's root. setup.sh makes the environment this runs in.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
scripts=$here/../../../shared/oracle
cache=${TVLMC_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tvlmc}
venv=$cache/oracle-venv
force=0

# name | make_checkpoint.py | both runs of run_reference.py | picture run
table='
nano-hf-bf16-s0            | --preset nano --format hf --dtype bf16 --seed 0                       |             | --random-image 3
nano-llava-bf16-s0-sharded | --preset nano --format llava --dtype bf16 --seed 0 --sharded          |             | --random-image 3
nano-hf-f32-s1             | --preset nano --format hf --dtype f32 --seed 1                        |             | --random-image 1
nano-hf-f16-s2-sharded     | --preset nano --format hf --dtype f16 --seed 2 --sharded              |             | --random-image 2
nano-hf-train-bf16-s3      | --preset nano --format hf --dtype bf16 --seed 3 --vision-form train   |             | --random-image 3
nano-llava-f32-s4          | --preset nano --format llava --dtype f32 --seed 4                     |             | --random-image 4
nano-llava-f16-s5          | --preset nano --format llava --dtype f16 --seed 5                     |             | --random-image 5
tiny-hf-bf16-s0            | --preset tiny --format hf --dtype bf16 --seed 0                       |             | --random-image 6
tiny-llava-bf16-s1         | --preset tiny --format llava --dtype bf16 --seed 1                    |             | --random-image 7
0.5b-hf-bf16-s0            | --preset 0.5b --format hf --dtype bf16 --seed 0 | --max-new 8 --ignore-eos          | --random-image 8
'

usage() { sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }
names() { sed -n 's/^\([^ |]\{1,\}\) *|.*/\1/p' <<<"$table"; }

want=()
while (($#)); do
  case $1 in
    --scripts) (($# > 1)) || usage; scripts=$2; shift ;;
    --force) force=1 ;;
    list) names; exit 0 ;;
    all) mapfile -t -O "${#want[@]}" want < <(names) ;;
    -*) usage ;;
    *) want+=("$1") ;;
  esac
  shift
done
((${#want[@]})) || usage

for file in make_checkpoint.py run_reference.py; do
  if [[ ! -f $scripts/$file ]]; then
    echo "draw.sh: no $file in $scripts; name the folder of the oracle scripts with --scripts" >&2
    exit 1
  fi
done
if [[ ! -x $venv/bin/python ]]; then
  echo "draw.sh: no environment in $venv; run setup.sh first" >&2
  exit 1
fi
for name in "${want[@]}"; do
  if ! names | grep -qxF -- "$name"; then
    echo "draw.sh: no checkpoint '$name'; draw.sh list names them" >&2
    exit 2
  fi
done

# One thread: the machine may be shared, and sums keep one order.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} HF_HUB_OFFLINE=1
mkdir -p "$cache/oracle"
for name in "${want[@]}"; do
  out=$cache/oracle/$name
  if ((!force)) && [[ -f $out/reference/image.safetensors && -f $out/reference/text.safetensors ]]; then
    echo "already there: $out"
    continue
  fi
  IFS='|' read -r _ make both picture < <(grep -F -- "$name " <<<"$table")
  tmp=$out.partial
  rm -rf "$tmp"
  # shellcheck disable=SC2086 # the columns are lists of words
  nice "$venv/bin/python" "$scripts/make_checkpoint.py" $make --out "$tmp"
  # shellcheck disable=SC2086
  nice "$venv/bin/python" "$scripts/run_reference.py" --model "$tmp" --max-new 16 --all-layers $both $picture \
    --save-image "$tmp/image.png" --out "$tmp/reference/image.safetensors"
  # shellcheck disable=SC2086
  nice "$venv/bin/python" "$scripts/run_reference.py" --model "$tmp" --max-new 16 --all-layers $both --text-only \
    --prompt "Hello, who's there? 123" --out "$tmp/reference/text.safetensors"
  rm -rf "$out"
  mv "$tmp" "$out"
done
