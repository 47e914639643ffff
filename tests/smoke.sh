#!/usr/bin/env bash
# The main job and each task once, on the bundled nano, with the Python that is named: tests/smoke.sh env/bin/python
set -euo pipefail
repo=$(cd "$(dirname "$0")/.." && pwd)
python=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
folder=$(mktemp -d)   # the results go to ./runs
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HF_HUB_OFFLINE=1

gpt2x() {
    echo "+ gpt2x $*"
    "$python" -m gpt2x "$@"
}

# An answer with exit code 0 is not enough: each task must also have written its table.
gpt2x
grep -q '"pass"' runs/validate/*/summary.csv
gpt2x task=generate prompt=Juliet seed=1 decode.max_new_tokens=8
gpt2x task=generate prompt=Juliet dtype=int8 decode.logprobs=2 decode.max_new_tokens=8
test "$(ls runs/generate/*/generations.csv | wc -l)" = 2
gpt2x -m task=generate prompt=Juliet seed=1,2 decode.max_new_tokens=8
test -s runs/sweeps/*/generations.csv
gpt2x task=train model=nano model.vocab_size=512 task.data="$repo/README.md" task.steps=20 task.batch_size=4 task.eval_every=10
gpt2x task=generate weights.path="$(echo runs/train/*/checkpoint)" prompt=the decode.max_new_tokens=8
gpt2x task=evaluate task.data="$repo/README.md"
test -s runs/evaluate/*/evaluation.csv
engines=gpt2x,gpt2x_lookup,transformers,ctranslate2,openvino,llamacpp
gpt2x task=benchmark "task.engines=[$engines]" task.batch_sizes=[1] task.prompt_tokens=4 task.new_tokens=4 task.rounds=2
test "$(grep -c float32 runs/benchmark/*/benchmark.csv)" = 6   # one row per engine: none was left out
gpt2x task=export task.format=gguf dtype=int8
test "$(grep -c '"pass"' runs/export/*/certificate.csv)" = 3   # gpt2x, gguf and llama.cpp
