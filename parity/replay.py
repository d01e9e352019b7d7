"""Recorded outputs of models, judged by lm-evaluation-harness's own functions and by remit's; every difference is printed.

    python parity/replay.py --replay target/release/examples/replay FILE.jsonl [FILE.jsonl ...]

FILE.jsonl has rows as microsoft/rho publishes them: `code`, whose last element is the completion, and `solution` (MATH) or
`answer` (GSM8K). Needs `pip install lm-eval==0.4.13 sympy antlr4-python3-runtime==4.11 math-verify`.

For MATH upstream's verdicts are minerva_math's `exact_match` and `math_verify` and hendrycks_math's `exact_match`; for GSM8K
`strict-match` and `flexible-extract`. remit's own verifiers (`math`, `gsm8k`) are put beside them: an answer that these
accept and upstream's do not is printed, and so is how many they leave undecided. Ends with status 1 where the rules that
are to be upstream's to the letter differ.
"""

import argparse
import collections
import importlib.util
import json
import pathlib
import re
import subprocess
import sys
import types
import warnings


def load(task):
    """A task's functions, without the rest of the harness."""
    root = importlib.util.find_spec("lm_eval")
    if root is None:
        sys.exit("lm-evaluation-harness is missing: pip install lm-eval==0.4.13")
    path = pathlib.Path(root.submodule_search_locations[0]) / "tasks" / task / "utils.py"
    spec = importlib.util.spec_from_file_location(f"utils_{task}", path)
    module = importlib.util.module_from_spec(spec)
    try:
        import datasets  # noqa: F401
    except ImportError:  # only named in annotations
        stub = types.ModuleType("datasets")
        stub.Dataset = object
        sys.modules["datasets"] = stub
    spec.loader.exec_module(module)
    return module


def upstream_math(row, minerva, hendrycks):
    completion, solution = row["completion"], row["solution"]
    expected = minerva.normalize_final_answer(minerva.remove_boxed(minerva.last_boxed_only_string(solution)))
    found = minerva.normalize_final_answer(minerva.get_unnormalized_answer(completion))
    dollars = [at for at, c in enumerate(completion) if c == "$"]
    answer = completion if len(dollars) <= 1 else completion[dollars[0] + 1 : dollars[-1]]
    gold = hendrycks.remove_boxed(hendrycks.last_boxed_only_string(solution))

    def strip(text):
        try:
            return hendrycks.strip_string(text)
        except Exception:  # upstream compares the texts as they stand
            return None

    def verified():
        try:
            return bool(minerva.verify(gold=minerva.parse(solution), target=minerva.parse(completion)))
        except Exception:
            return False

    return {
        "minerva": {"found": found, "expected": expected, "right": bool(minerva.is_equiv(found, expected))},
        "hendrycks": {"found": strip(answer), "expected": strip(gold), "right": hendrycks.is_equiv(answer, gold)},
        "math_verify": verified(),
    }


def upstream_gsm8k(row):
    def clean(text):
        for pattern in [",", r"\$", r"(?s).*#### ", r"\.$"]:
            text = re.sub(pattern, "", text)
        return text.lower()

    strict = re.findall(r"#### (\-?[0-9\.\,]+)", row["completion"])
    flexible = re.findall(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", row["completion"])
    flexible = [m for m in flexible[-1] if m][0].strip() if flexible else "[invalid]"
    gold = clean(row["solution"])
    return {
        "strict-match": clean(strict[0].strip() if strict else "[invalid]") == gold,
        "flexible-extract": clean(flexible) == gold,
    }


def replay(path, binary, minerva, hendrycks):
    rows = []
    for line in pathlib.Path(path).read_text(encoding="utf-8").split("\n"):
        if line.strip():
            row = json.loads(line)
            rows.append({"completion": row["code"][-1], "solution": row.get("solution", row["answer"])})
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    output = subprocess.run([binary, "math"], input=lines, capture_output=True, text=True, check=True, encoding="utf-8").stdout
    counts, num_different = collections.Counter(), 0
    for index, (row, line) in enumerate(zip(rows, output.strip().split("\n"), strict=True)):
        ours = json.loads(line)
        if "####" in row["solution"]:
            theirs, accepting = upstream_gsm8k(row), []
            for name, verdict in theirs.items():
                counts[f"{name}: right"] += verdict
                if verdict != ours[name]:
                    num_different += 1
                    print(f"{path}:{index + 1}: {name}: upstream {verdict}, remit {ours[name]}")
            accepting, verifier = [theirs["flexible-extract"]], "gsm8k"
        else:
            theirs = upstream_math(row, minerva, hendrycks)
            for task, names in [("minerva", ["found", "expected"]), ("hendrycks", ["found", "expected", "right"])]:
                for name in names:
                    if theirs[task][name] != ours[task][name]:
                        num_different += 1
                        print(f"{path}:{index + 1}: {task} {name}: upstream {theirs[task][name]!r}, remit {ours[task][name]!r}")
            by_us = ours["minerva"]["equality"].split("(")[0]
            right = theirs["minerva"]["right"]
            counts[f"minerva: right {right}, remit's equality {by_us}"] += 1
            if (right and by_us == "Different") or (not right and by_us == "Equal"):
                print(f"{path}:{index + 1}: minerva: upstream {right}, remit {ours['minerva']}")
            counts["hendrycks: right"] += theirs["hendrycks"]["right"]
            counts["math_verify: right"] += theirs["math_verify"]
            accepting, verifier = [right, theirs["hendrycks"]["right"], theirs["math_verify"]], "math"
        verdict = ours[verifier]
        counts[f"verifier {verifier}: {verdict['outcome']}, upstream {'accepts' if any(accepting) else 'refuses'}"] += 1
        if verdict["outcome"] == "right" and not any(accepting):
            print(f"{path}:{index + 1}: accepted by `{verifier}` alone: {verdict['why']}")
        if verdict["outcome"] == "wrong" and all(accepting):
            print(f"{path}:{index + 1}: refused by `{verifier}` alone: {verdict['why']}")
    print(f"{path}: {len(rows)} rows, {num_different} differences where remit follows upstream to the letter")
    for name, count in sorted(counts.items()):
        print(f"  {count:6}  {name}")
    return num_different


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", help="rows as microsoft/rho publishes them")
    parser.add_argument("--replay", required=True, help="the example `replay` of remit-judge, built")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    minerva, hendrycks = load("minerva_math"), load("hendrycks_math")
    different = sum(replay(path, arguments.replay, minerva, hendrycks) for path in arguments.files)
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
