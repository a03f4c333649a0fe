#!/usr/bin/env bash
# The claims about a step on a CUDA device, at the paper's size and at FPRM's; then a run of every kind there.
# `benchmarks/on_gpu.sh [FOLDER]` from the repository's root; what it prints goes into docs/performance.md by hand.
set -uo pipefail
out=${1:-/tmp/on_gpu}
export REMIND_BENCH_DEVICE=cuda PYTHONPATH=src:benchmarks${PYTHONPATH:+:$PYTHONPATH}
large='--dim 768 --experts 128'
nvidia-smi --query-gpu=name --format=csv,noheader
for words in "precision_and_compile.py $large" "precision_and_compile.py" "collapsed_tokens.py $large" \
  "collapsed_tokens.py --missing 0 --target 0.95 $large" "many_modalities.py" "batched_experts.py --dim 768" \
  "batched_experts.py --dim 768 --against products" "group_routing.py $large" "group_routing.py"; do
  # shellcheck disable=SC2086
  timeout 150 python3 benchmarks/$words 2>&1 | tail -1
done
python3 - "$out" <<'PY'
import sys
from pathlib import Path

from remind.sources.synthetic import write

write(Path(sys.argv[1]) / "cohort", samples=3000)
PY
train() { timeout 150 python3 -m remind train "$out/cohort" -s train.device=cuda -s train.epochs=4 -s train.lr=0.005 "$@" 2>&1 | tail -2; }
for method in remind soft-moe fusemoe flex-moe group-dro fairbatch fair-mixup; do
  { train -m $method --out "$out/$method" && python3 -m remind evaluate "$out/$method" 2>&1 | tail -4; } &
done
train -m remind -s train.precision=bf16-mixed --out "$out/bf16" &
train -m remind -s train.compile=true --out "$out/compiled" &
train -m remind -s train.gradients_every=40 --out "$out/gradients" &
train -m remind --out "$out/again" &
torchrun --nproc-per-node 1 -m remind train "$out/cohort" -m remind -s train.device=cuda -s train.epochs=2 --out "$out/nccl" 2>&1 | tail -2 &
wait
cmp "$out"/{remind,again}/checkpoint/model/tensors.safetensors && echo 'the same bits'
timeout 150 python3 -m remind analyze cost "$out/cohort" --out "$out/cost" -m remind -m soft-moe -s train.device=cuda 2>&1 | tail -12
