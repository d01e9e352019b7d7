#!/bin/sh
# Fine-tuning and reinforcement learning of a mid-trained model, for three seeds:
#
#   recipes/post-training.sh [MODEL] [DIRECTORY]
#
# MODEL is a checkpoint or a run, by default the quickstart's. Stopped at any moment, the same command goes on.
set -eu
model=${1:-runs/quickstart/models/ntp-0-seed-1-midtrain}
home=${2:-runs/post-training}
remit="${REMIT:-target/release/remit} --config recipes/post-training.toml"
mkdir -p "$home"

for seed in 1 2 3; do
    sft="$home/sft-$seed" rl="$home/rl-$seed"
    # Sixteen thousand solutions to learn from, twenty thousand other problems to be rewarded for.
    [ -f "$sft.jsonl" ] || $remit problems --out "$sft.jsonl" --count 16000 --seed "1$seed"
    [ -f "$rl.jsonl" ] || $remit problems --out "$rl.jsonl" --count 20000 --seed "2$seed"
    $remit sft "$sft.jsonl" --run "$sft" --from "$model" --sft.seed="$seed"
    $remit rl "$rl.jsonl" --run "$rl" --from "$sft" --rl.seed="$seed"
    $remit eval "$sft" --out "$sft-eval"
    $remit eval "$rl" --out "$rl-eval"
done

$remit compare \
    "sft=$home/sft-1-eval,$home/sft-2-eval,$home/sft-3-eval" "rl=$home/rl-1-eval,$home/rl-2-eval,$home/rl-3-eval"
