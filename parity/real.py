#!/usr/bin/env python3
"""Holds remit to `transformers` on a checkpoint that others made, with the checkpoint's own tokenizer and chat template.

With `--checkpoint`: the ids of some hundred texts (problems, code, many scripts, emoji, control characters), the ids of
conversations and which of them are learned, greedy continuations, and the loss of rows. With `--layouts`: the same by ids
alone for a dozen layouts of tokenizers, which the script trains itself on the rows, each beside a tiny model. Ends with
status 1 where anything differs.

    python parity/real.py --checkpoint DIR --rows gsm8k/train.jsonl --remit target/release/remit
    python parity/real.py --layouts --rows gsm8k/train.jsonl --remit target/release/remit

`--rows` are JSON lines with `question` and `answer`, as GSM8K comes.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

SCRIPTS = [
    "Der Zug fährt um 8:15 Uhr ab; übrig bleiben 37,5 Kilometer.", "Où est passée l'école à côté du vieux château ?",
    "¿Cuántas manzanas compró la niña el año pasado?", "Сколько яблок осталось у Маши, если она съела три?",
    "Πόσα μήλα έχει η Μαρία στο καλάθι της;", "小明有十二个苹果，他给了小红三分之一。", "りんごが十二個あります。三個食べました。",
    "사과가 열두 개 있습니다. 세 개를 먹었습니다.", "كم تفاحة بقيت في السلة بعد الظهر؟", "כמה תפוחים נשארו בסל אחרי הצהריים?",
    "मेरे पास बारह सेब हैं और मैंने तीन खा लिए।", "আমার কাছে বারোটি আপেল আছে।", "எனக்கு பன்னிரண்டு ஆப்பிள்கள் உள்ளன.",
    "ฉันมีแอปเปิ้ลสิบสองผลในตะกร้า", "Tôi có mười hai quả táo trong giỏ.", "მე თორმეტი ვაშლი მაქვს.", "Ես ունեմ տասներկու խնձոր։",
    "እኔ አሥራ ሁለት ፖም አለኝ።", "ខ្ញុំមានផ្លែប៉ោមដប់ពីរ។", "İstanbul'da ışık ve ılık bir öğle.", "Żółw zjadł dwanaście jabłek.",
    "Það voru tólf epli í körfunni.", "ﬁne ﬂow ½ ¾ ² Ⅳ Å Å é é", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟙𝟚𝟛 𐍈 𓀀 𠜎",
]
EMOJI = [
    "🍎🍎🍎 + 🍐🍐 = ?", "👩‍👩‍👧‍👦 went to 🏖️ on ☀️ days", "👍🏽👍🏿 thumbs", "🇩🇪🇫🇷🇯🇵 flags", "❤️‍🔥 1️⃣2️⃣3️⃣ #️⃣", "¯\\_(ツ)_/¯ ( ͡° ͜ʖ ͡°)",
]
CONTROL = [
    "a\x00b", "\x01\x02\x03", "bell\x07 back\x08 form\x0c vertical\x0b", "esc \x1b[31mred\x1b[0m", "del\x7f nel\x85 nbsp\xa0x",
    "zero\u200bwidth\u200djoiner\ufeffbom", "line\u2028paragraph\u2029end", "\u202eright to left\u202c", "soft\xadhyphen", "\ufffd\ufffe",
    "\r\n\r\n", "a\rb\r\nc\nd", "\t\tx\t y", " ", "  ", "\n", "\n\n\n", " \n \n", "x ", " x", "x  ", "  x", "   \t  \n  x  \n",
    "tail\n", "\nhead", "a\n\n b", "a  \t5", "1 2  3   4    5", "0123456789", "1,234,567.89", "3.14e-10", "----====****", "''\"\"``",
    "it's we'll I'M THEY'RE", "a" * 300, "ab " * 200, "\n" * 50, " " * 77 + "x", "(((((((((", "http://example.org/a?b=c&d=%20#e",
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, metavar="DIR", help="a checkpoint with tokenizer and chat template")
    parser.add_argument("--layouts", action="store_true", help="tokenizers that the script makes")
    parser.add_argument("--rows", type=Path, metavar="FILE.jsonl", required=True, help="`question` and `answer`")
    parser.add_argument("--remit", metavar="PATH", required=True, help="the program to compare with")
    parser.add_argument("--texts", type=int, default=600, help="texts at most")
    parser.add_argument("--conversations", type=int, default=50)
    parser.add_argument("--prompts", type=int, default=20, help="greedy continuations")
    parser.add_argument("--losses", type=int, default=20, help="rows whose loss is compared")
    parser.add_argument("--max-new-tokens", type=int, default=16)
    parser.add_argument("--tolerance", type=float, default=1e-4, help="of losses, relative")
    args = parser.parse_args()
    if not args.checkpoint and not args.layouts:
        parser.error("give --checkpoint, --layouts or both")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()

    rows = [json.loads(line) for line in args.rows.read_text(encoding="utf-8").splitlines() if line]
    print(f"transformers {transformers.__version__}, torch {torch.__version__}")
    problems = []
    with tempfile.TemporaryDirectory() as work:
        remit = Remit(args.remit, Path(work))
        if args.layouts:
            check_layouts(remit, rows, args, problems)
        if args.checkpoint:
            check_checkpoint(remit, args.checkpoint, rows, args, problems)
    for problem in problems[:20]:
        print(f"FAILED: {problem}")
    if problems:
        sys.exit(f"{len(problems)} differences")
    print("all equal")


class Remit:
    """The program, and a place for its files."""

    def __init__(self, path, work):
        self.path, self.work, self.count = path, work, 0

    def run(self, *arguments):
        command = [self.path, *map(str, arguments), "--json", "--quiet"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)}\n{done.stderr}")
        return json.loads(done.stdout)

    def file(self, name, text):
        self.count += 1
        path = self.work / f"{self.count}-{name}"
        path.write_text(text, encoding="utf-8", newline="")
        return path

    def documents(self, tokenizer, texts):
        """The ids of each text as a document of a token store."""
        rows = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        store = self.work / f"{self.count}-store"
        self.run("prepare", self.file("texts.jsonl", rows), "--tokenizer", tokenizer, "--out", store)
        manifest = json.loads((store / "manifest.json").read_text())
        tokens = np.fromfile(store / "tokens.bin", dtype={"u16": "<u2", "u32": "<u4"}[manifest["dtype"]]).tolist()
        ends = np.fromfile(store / "documents.bin", dtype="<u8").tolist()
        return [tokens[start:end] for start, end in zip([0] + ends, ends)]

    def row(self, checkpoint, row):
        """The ids of a row of fine-tuning, and which of them are learned."""
        file = self.file("row.jsonl", json.dumps(row) + "\n")
        run = self.work / f"{self.count}-run"
        plan = self.run("sft", file, "--from", checkpoint, "--run", run, "--steps", 1, "--sft.data.window=2048", "--dry-run")
        return plan["first"][0]["ids"], plan["first"][0]["learned"]


def texts_of(rows, count):
    """Distinct texts of many kinds, the same for everybody."""
    generator = random.Random(0)
    code = "\n".join(Path(module.__file__).read_text(encoding="utf-8") for module in (json, textwrap, random, argparse))
    lines = code.splitlines(keepends=True)
    chunks = ["".join(lines[start:start + 12]) for start in range(0, len(lines), 12)]
    points = [range(0x20, 0x7F), range(0xA0, 0x600), range(0x900, 0xE00), range(0x3040, 0x30FF), range(0x4E00, 0x5200), range(0x1F300, 0x1F650)]
    mixed = ["".join(chr(generator.choice(generator.choice(points))) for _ in range(generator.randint(1, 60))) for _ in range(100)]
    blanks = ["".join(generator.choice([" ", "\n", "\t", "a", "5", ".", "é"]) for _ in range(30)) for _ in range(60)]
    problems = [text for row in rows[:120] for text in (row["question"], row["answer"])]
    problems = [problem for problem in problems if problem]
    texts = [*SCRIPTS, *EMOJI, *CONTROL, *mixed, *blanks, *problems, *chunks]
    return list(dict.fromkeys(texts))[:count]


def conversations_of(rows, count):
    """Of one to four turns, half of them with a system message."""
    conversations = []
    for index in range(count):
        messages = [{"role": "system", "content": "Answer briefly.\n"}] if index % 2 else []
        for row in rows[4 * index:4 * index + 1 + index % 4]:
            messages.append({"role": "user", "content": row["question"]})
            messages.append({"role": "assistant", "content": row["answer"] + SCRIPTS[index % len(SCRIPTS)]})
        conversations.append(messages)
    return conversations


def expected_documents(tokenizer, texts):
    """What `tokenizer(text)` gives, and the end token behind it; the end token that a text begins with is the last one's."""
    documents = []
    for text in texts:
        ids = tokenizer(text).input_ids
        if ids[:1] == [tokenizer.eos_token_id] and not text.startswith(tokenizer.eos_token):
            ids = ids[1:]
        if ids[-1:] != [tokenizer.eos_token_id] or text.endswith(tokenizer.eos_token):
            ids = ids + [tokenizer.eos_token_id]
        documents.append(ids)
    return documents


def expected_conversation(tokenizer, messages):
    """The ids of the rendered text, and those whose characters the assistant writes, up to its last end token."""
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    assert encoding.input_ids == tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True)["input_ids"]
    spans = []
    for index, message in enumerate(messages):
        if message["role"] == "assistant":
            start = len(tokenizer.apply_chat_template(messages[:index], tokenize=False, add_generation_prompt=True))
            end = len(tokenizer.apply_chat_template(messages[:index + 1], tokenize=False))
            last = text.rfind(tokenizer.eos_token, start, end)
            spans.append((start, last + len(tokenizer.eos_token) if last >= 0 else end))
    # A token of nothing but blanks can have its offsets trimmed to nothing, at its end.
    inside = lambda a, b: any(start <= a and b <= end and (a < b or start < a) for start, end in spans)
    learned = [inside(a, b) for a, b in encoding.offset_mapping]
    return encoding.input_ids, learned


def differ(found, expected):
    at = next((i for i, (a, b) in enumerate(zip(found, expected)) if a != b), min(len(found), len(expected)))
    return f"{found[max(at - 2, 0):at + 4]} instead of {expected[max(at - 2, 0):at + 4]} at {at}"


def compare(name, found, expected, problems):
    """Prints how many are equal."""
    equal = 0
    for index, (a, b) in enumerate(zip(found, expected, strict=True)):
        if a == b:
            equal += 1
        else:
            problems.append(f"{name}, number {index}: {differ(a, b)}")
    print(f"{name}: {equal} of {len(expected)} equal", flush=True)


def check_ids(remit, checkpoint, rows, args, problems, name=""):
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    texts = texts_of(rows, args.texts)
    named = [tokenizer.eos_token, "<x>", "<|im_end|>", "<tool>"]
    texts += [f"a{left}{token}{right}b 12" for token in named for left in ("", " ") for right in ("", " ", "\n")]
    expected = expected_documents(tokenizer, texts)
    compare(f"{name}texts", remit.documents(checkpoint, texts), expected, problems)
    print(f"{name}texts: {sum(map(len, expected))} ids", flush=True)
    return tokenizer


def check_conversations(remit, checkpoint, tokenizer, conversations, problems, name=""):
    expected = [expected_conversation(tokenizer, messages) for messages in conversations]
    found = [remit.row(checkpoint, {"messages": messages}) for messages in conversations]
    compare(f"{name}conversations", [ids for ids, _ in found], [ids for ids, _ in expected], problems)
    compare(f"{name}what is learned of them", [mask for _, mask in found], [mask for _, mask in expected], problems)


def check_checkpoint(remit, checkpoint, rows, args, problems):
    started = time.time()
    tokenizer = check_ids(remit, checkpoint, rows, args, problems)
    check_conversations(remit, checkpoint, tokenizer, conversations_of(rows, args.conversations), problems)

    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager").eval()
    prompts = [f"Question: {row['question']}\nAnswer:" for row in rows[:args.prompts // 2]]
    prompts += ["The capital of France is", "def fibonacci(n):\n", "Once upon a time", "1, 2, 3, 4,", "Die Hauptstadt von"]
    prompts += SCRIPTS
    prompts = prompts[:args.prompts]
    expected, found = [], []
    for prompt in prompts:
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        with torch.no_grad():
            expected.append(model.generate(ids, max_new_tokens=args.max_new_tokens, do_sample=False)[0].tolist())
        arguments = ["--model", checkpoint, "--prompt", prompt, "--greedy", "--max-new-tokens", args.max_new_tokens]
        found.append(remit.run("generate", *arguments)["sequences"][0])
    compare("greedy continuations", found, expected, problems)

    largest = 0.0
    for row in rows[-args.losses:]:
        text = f"{row['question']}\n{row['answer']}"
        ids = tokenizer(text, return_tensors="pt").input_ids
        with torch.no_grad():
            expected = model(ids, labels=ids).loss.item()
        file = remit.file("text.txt", text)
        summary = remit.run("weights", "--learner", checkpoint, "--reference", checkpoint, "--text", file)["summary"]
        largest = max(largest, abs(summary["ntp_loss"] - expected) / expected)
    print(f"losses of {args.losses} rows: largest relative difference {largest:.1e}")
    if not largest <= args.tolerance:
        problems.append(f"a loss differs by {largest:.1e}, more than {args.tolerance:.0e}")
    print(f"{time.time() - started:.0f} s")


# Layouts of tokenizers. ---------------------------------------------------------------------------------------------

GPT_4 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN = GPT_4.replace(r"\p{N}{1,3}", r"\p{N}")


def byte_level(**more):
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True, **more}


def split(expression):
    pattern = {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [pattern, byte_level(use_regex=False)]}


def added(id, content, **more):
    token = {"id": id, "content": content, "single_word": False, "lstrip": False, "rstrip": False}
    return {**token, "normalized": False, "special": True, **more}


def template(special, front=(), behind=()):
    piece = lambda token: {"SpecialToken": {"id": token, "type_id": 0}}
    single = [*map(piece, front), {"Sequence": {"id": "A", "type_id": 0}}, *map(piece, behind)]
    pair = single + [{"Sequence": {"id": "B", "type_id": 1}}]
    tokens = {token: {"id": token, "ids": [special.index(token)], "tokens": [token]} for token in (*front, *behind)}
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens}


def byte_bpe(texts, special, pre_tokenizer, post_processor=None, normalizer=None, **model):
    """A byte-level BPE tokenizer trained on the texts; special tokens come first."""
    from tokenizers import Tokenizer, pre_tokenizers, trainers

    empty = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
             "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": {}, "merges": []}
    json_of = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": normalizer,
               "pre_tokenizer": pre_tokenizer, "post_processor": None, "decoder": byte_level(), "model": empty}
    tokenizer = Tokenizer.from_str(json.dumps(json_of))
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1500, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    result = json.loads(tokenizer.to_str())
    result["post_processor"] = post_processor
    result["model"].update(model)
    return result


def sentencepiece_bpe(texts, scheme, post_processor_front=("<s>",)):
    """As SentencePiece models come out of conversion: blanks are `▁`, unknown characters are bytes."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    special = ["<unk>", "<s>", "</s>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    alphabet = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=1500, special_tokens=special + alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    result = json.loads(tokenizer.to_str())
    result["added_tokens"] = [added(id, token) for id, token in enumerate(special)]
    steps = [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
             {"type": "Strip", "content": " ", "start": 1, "stop": 0}]
    result["decoder"] = {"type": "Sequence", "decoders": steps}
    result["post_processor"] = template(special, post_processor_front)
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    if scheme == "prepend":
        result["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, replace]}
        result["pre_tokenizer"] = None
    else:
        result["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": False}
    return result


def unigram(texts):
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    trainer = trainers.UnigramTrainer(vocab_size=1000, special_tokens=["<unk>", "<s>", "</s>"], unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    result = json.loads(tokenizer.to_str())
    result["post_processor"] = template(["<unk>", "<s>", "</s>"], ["<s>"])
    return result


CHAT = (
    "{{ bos_token or '' }}{% for m in messages %}{% if m['role'] == 'assistant' %}{{ ' ' + m['content'] + eos_token }}"
    "{% else %}{{ '[' + m['role'] + '] ' + m['content'] + ' [/]' }}{% endif %}{% endfor %}"
)


def layouts(rows):
    """By name: the files of a tokenizer, and the `model_type` of its model."""
    texts = [text for row in rows[:1500] for text in (row["question"], row["answer"])] + SCRIPTS * 3
    names = ["<s>", "</s>"]
    llama_names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    fast = {"tokenizer_class": "PreTrainedTokenizerFast"}
    made = {}

    def add(name, tokenizer, config, model_type="llama", **files):
        config = {"chat_template": CHAT, "clean_up_tokenization_spaces": False, **config}
        made[name] = ({"tokenizer.json": tokenizer, "tokenizer_config.json": config, **files}, model_type)

    prepend = sentencepiece_bpe(texts, "prepend")
    add("Llama 2: Prepend, bytes for unknown characters", prepend, {**llama_names, **fast})
    add("Llama 2, named LlamaTokenizer", prepend, {**llama_names, "tokenizer_class": "LlamaTokenizer", "legacy": False})
    add("Llama 2, its older behaviour", prepend, {**llama_names, "tokenizer_class": "LlamaTokenizerFast", "legacy": True, "add_bos_token": False})
    for scheme in ("first", "always", "never"):
        add(f"Metaspace, {scheme}", sentencepiece_bpe(texts, scheme), {**llama_names, **fast})
    add("Unigram", unigram(texts), {**llama_names, **fast})

    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]
    llama_3 = {"bos_token": special[0], "eos_token": special[2], **fast}
    front = template(special, special[:1])
    both = {"type": "Sequence", "processors": [byte_level(), front]}
    add("Llama 3", byte_bpe(texts, special, split(GPT_4), both, ignore_merges=True), llama_3)
    add("SmolLM3", byte_bpe(texts, special, split(GPT_4), template(special)), {"bos_token": None, "eos_token": special[1], **fast}, "smollm3")
    digits = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level()]}
    chat = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    smollm2 = {"bos_token": chat[1], "eos_token": chat[2], **fast}
    add("SmolLM2: a beginning token that is only named", byte_bpe(texts, chat, digits), smollm2)
    qwen = byte_bpe(texts, chat, split(QWEN), byte_level(), {"type": "NFC"})
    decoder = {token.pop("id"): token for token in (added(id, token) for id, token in enumerate(chat))}
    qwen_3 = {"bos_token": None, "eos_token": chat[2], "pad_token": chat[0], "add_bos_token": False}
    qwen_3 |= {"additional_special_tokens": chat[1:], "added_tokens_decoder": decoder, "tokenizer_class": "Qwen2Tokenizer"}
    add("Qwen 3", qwen, qwen_3, "qwen3")
    add("OLMo 2", byte_bpe(texts, chat[:1], split(GPT_4)), {"bos_token": chat[0], "eos_token": chat[0], "tokenizer_class": "GPT2Tokenizer"}, "olmo2")
    add("OLMo 2, end token in front", byte_bpe(texts, chat[:1], split(GPT_4), template(chat, chat[:1])), {"bos_token": None, "eos_token": chat[0], **fast}, "olmo2")
    add("digits apart, named GPT2Tokenizer", byte_bpe(texts, chat, digits), {"bos_token": chat[1], "eos_token": chat[2], "tokenizer_class": "GPT2Tokenizer"})
    add("GPT NeoX", byte_bpe(texts, chat[:1], byte_level(), template(chat, chat[:1])), {"eos_token": chat[0], "tokenizer_class": "GPTNeoXTokenizerFast"})
    add("Qwen 3, nothing named", byte_bpe(texts, chat, split(GPT_4)), {}, "qwen3")
    add("GPT 2", byte_bpe(texts, chat[:1], byte_level()), {"bos_token": chat[0], "eos_token": chat[0], "tokenizer_class": "GPT2Tokenizer"})
    steps = [r"[0-9]{1,3}", r"[\u4e00-\u9fff]+", QWEN]
    youtu = {"type": "Sequence", "pretokenizers": [*(split(step)["pretokenizers"][0] for step in steps), byte_level(use_regex=False)]}
    add("Youtu", byte_bpe(texts, special, youtu, front), {"bos_token": special[0], "eos_token": special[1], **fast})
    roberta = {"type": "RobertaProcessing", "sep": ["</s>", 1], "cls": ["<s>", 0], "trim_offsets": True, "add_prefix_space": True}
    add("a blank in front, RobertaProcessing", byte_bpe(texts, names, byte_level(add_prefix_space=True), roberta), {"bos_token": "<s>", "eos_token": "</s>", **fast})

    plain = byte_bpe(texts, chat, split(QWEN))
    size = len(plain["model"]["vocab"])
    as_map = lambda **tokens: {"special_tokens_map.json": tokens}
    end = {"content": chat[2], "lstrip": True, "rstrip": False, "normalized": False, "single_word": False}
    add("end token in special_tokens_map.json", plain, {"bos_token": None, **fast}, **as_map(eos_token=end))
    two = as_map(eos_token=chat[2], additional_special_tokens=["<x>", "<tool>"])
    add("special_tokens_map.json against tokenizer_config.json", plain, {"eos_token": chat[0], **fast}, **two)
    add("added_tokens.json", plain, {"eos_token": chat[0], **fast}, **{"added_tokens.json": {"<x>": size, "<tool>": size + 1}})
    more = {str(size): {"content": "<x>", "lstrip": True, "rstrip": True, "normalized": False, "single_word": False, "special": True},
            str(size + 1): {"content": "<tool>", "lstrip": False, "rstrip": False, "normalized": True, "single_word": True, "special": False}}
    add("added_tokens_decoder", plain, {"eos_token": chat[0], "added_tokens_decoder": more, **fast})
    add("additional_special_tokens, pad_token", plain, {"eos_token": chat[0], "additional_special_tokens": ["<x>"], "pad_token": "<tool>", **fast})
    add("extra_special_tokens by name", plain, {"eos_token": chat[0], "extra_special_tokens": {"image_token": "<x>"}, "audio_token": "<tool>", **fast})
    add("special tokens as text", plain, {"eos_token": chat[0], "extra_special_tokens": ["<x>"], "split_special_tokens": True, **fast})
    return made


def check_layouts(remit, rows, args, problems):
    for number, (name, (files, model_type)) in enumerate(layouts(rows).items()):
        directory = remit.work / f"layout-{number}"
        vocab = files["tokenizer.json"]["model"]["vocab"]
        shape = {"vocab_size": len(vocab) + 8, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
        heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 4096}
        config = AutoConfig.for_model(model_type, **shape, **heads, pad_token_id=0, bos_token_id=0, eos_token_id=1)
        AutoModelForCausalLM.from_config(config).save_pretrained(directory)
        for file, content in files.items():
            (directory / file).write_text(json.dumps(content), encoding="utf-8")
        tokenizer = check_ids(remit, directory, rows, args, problems, f"{name}: ")
        check_conversations(remit, directory, tokenizer, conversations_of(rows, 4), problems, f"{name}: ")
        check_rows(remit, directory, tokenizer, rows[:4], problems, f"{name}: ")


def check_rows(remit, checkpoint, tokenizer, rows, problems, name):
    """A prompt and its completion have the ids of the whole text, wherever no token reaches across their boundary."""
    expected, found = [], []
    for row in rows:
        prompt, completion = f"Question: {row['question']}\nAnswer:", f" {row['answer']}"
        ids = tokenizer(prompt + completion).input_ids
        given = len(tokenizer(prompt).input_ids)
        eos = tokenizer.eos_token_id
        if ids[-1] == eos:
            ids, given = ids[:-1], given - 1
        expected.append((ids + [eos], [index >= given for index in range(len(ids) + 1)]))
        found.append(remit.row(checkpoint, {"prompt": prompt, "completion": completion}))
    compare(f"{name}rows", [ids for ids, _ in found], [ids for ids, _ in expected], problems)
    compare(f"{name}what is learned of them", [mask for _, mask in found], [mask for _, mask in expected], problems)


if __name__ == "__main__":
    main()
