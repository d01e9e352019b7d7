#!/usr/bin/env bash
# Your own text and GSM8K, from files to a base model mid-trained with and without token weights.
#
#     recipes/text-and-gsm8k.sh TEXT GSM8K_DIRECTORY
#
# TEXT is a file or directory of text, JSONL or Parquet, or a quoted pattern; GSM8K_DIRECTORY has `train.jsonl` and
# `test.jsonl`. Killed and started again it goes on where it was. REMIT names the program, RECIPE another recipe.
set -euo pipefail
text=${1:?TEXT is missing} gsm8k=${2:?GSM8K_DIRECTORY is missing}
remit=${REMIT:-target/release/remit}
home=runs/text-and-gsm8k
with() { "$remit" "$@" --config "${RECIPE:-recipes/text-and-gsm8k.toml}"; }

[ -e "$home/tokenizer.json" ] ||
    with train-tokenizer --out "$home/tokenizer.json" \
        --tokenizer.sources.0.path="$text" --tokenizer.sources.1.path="$gsm8k/train.jsonl"
with prepare --out "$home/corpus" --prepare.sources.0.path="$text" --prepare.sources.1.path="$gsm8k/train.jsonl"
with prepare "$gsm8k/test.jsonl" --out "$home/gsm8k-test" --holdout 0 \
    --text-field $'Question: {question}\nAnswer: {answer}'

with pretrain
# A stand-in for the reference, until reinforcement learning makes one: the same model, twice as long on GSM8K.
with midtrain --run "$home/reference" --midtrain.objective.kind=ntp --midtrain.steps=800
with score
with midtrain --run "$home/ntp" --midtrain.objective.kind=ntp
with midtrain

with weights --learner "$home/ntp" --reference "$home/reference" --html "$home/weights.html" --quiet --text <(
    printf 'Question: Anna has 3 boxes of 12 pencils. How many pencils does she have?\nAnswer: She has 3*12=<<3*12=36>>36 pencils.\n#### 36\n'
)
