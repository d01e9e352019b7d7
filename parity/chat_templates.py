#!/usr/bin/env python3
"""Chat templates as `transformers` renders them, recorded for the test that compares remit's.

Renders conversations with the templates built into remit and with others that use what templates in the wild use, and
writes text, assistant spans (from `return_assistant_tokens_mask`) and refusals as JSON.

    python parity/chat_templates.py > crates/corpus/tests/data/chat_templates.json
"""

import argparse
import datetime
import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

BUILT_IN = Path(__file__).parent.parent / "crates" / "corpus" / "src" / "examples"
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<cls>"}
SPECIAL = ["<pad>", "<unk>", "<cls>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]

TEMPLATES = {
    # Tools and their calls as JSON, thoughts kept behind the last question only, runs of tool results as one turn.
    "qwen-like": r"""
{%- if tools %}
    {{- '<|im_start|>system\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\n\n' }}
    {%- endif %}
    {{- "# Tools\n<tools>" }}
    {%- for tool in tools %}
        {{- "\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\n</tools><|im_end|>\n" }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
{%- endif %}
{%- set ns = namespace(searching=true, last_query=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.searching and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.searching = false %}
        {%- set ns.last_query = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query and (loop.last or reasoning) %}
            {{- '<|im_start|>' + message.role + '\n<think>\n' + reasoning.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\n' + content }}
        {%- endif %}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if (loop.first and content) or (not loop.first) %}
                    {{- '\n' }}
                {%- endif %}
                {%- if tool_call.function %}
                    {%- set tool_call = tool_call.function %}
                {%- endif %}
                {{- '<tool_call>\n{"name": "' }}
                {{- tool_call.name }}
                {{- '", "arguments": ' }}
                {%- if tool_call.arguments is string %}
                    {{- tool_call.arguments }}
                {%- else %}
                    {{- tool_call.arguments | tojson }}
                {%- endif %}
                {{- '}\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\n<tool_response>\n' + content + '\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %}
""".lstrip("\n"),
    # Defaults, a header with date and mode, tools printed as Python prints them, dashes on both sides, marks.
    "smollm3-like": r"""
{# defaults #}
{%- if enable_thinking is not defined -%}
{%- set enable_thinking = true -%}
{%- endif -%}

{%- set mode = "/think" if enable_thinking else "/no_think" -%}
{{- "<|im_start|>system\n" -}}
{%- if messages[0].role == "system" -%}
  {%- set system_message = messages[0].content -%}
  {%- if "/no_think" in system_message -%}
    {%- set mode = "/no_think" -%}
  {%- endif -%}
  {%- set instructions = system_message.replace("/no_think", "").replace("/think", "").rstrip() -%}
{%- endif -%}
{{- "Today Date: " + strftime_now("%d %B %Y") + "\n" -}}
{{- "Reasoning Mode: " + mode + "\n\n" -}}
{%- if instructions -%}
  {{- instructions + "\n\n" -}}
{%- endif -%}
{%- if xml_tools is defined -%}
  {%- set ns = namespace(listed="<tools>\n") -%}
  {%- for tool in xml_tools[:] -%}
    {%- set ns.listed = ns.listed + (tool | string) + "\n" -%}
  {%- endfor -%}
  {{- ns.listed + "</tools>" -}}
{%- endif -%}
{{- "<|im_end|>\n" -}}

{%- for message in messages -%}
    {%- set content = message.content if message.content is string else "" -%}
    {%- if message.role == "user" -%}
        {{ "<|im_start|>" + message.role + "\n" + content + "<|im_end|>\n" }}
    {%- elif message.role == "assistant" -%}
        {{- "<|im_start|>assistant\n" -}}
        {%- generation -%}
        {%- if mode == "/think" -%}
            {{ content.lstrip("\n") + "<|im_end|>\n" }}
        {%- else -%}
            {{ "<think>\n\n</think>\n" + content.lstrip("\n") + "<|im_end|>\n" }}
        {%- endif -%}
        {%- endgeneration -%}
    {%- elif message.role == "tool" -%}
        {{ "<|im_start|>user\n" + content + "<|im_end|>\n" }}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ "<|im_start|>assistant\n" if mode == "/think" else "<|im_start|>assistant\n<think>\n\n</think>\n" }}
{%- endif -%}
""".lstrip("\n"),
    # Strict turns, refusals, trimmed contents, a default date, a macro, loops that skip and stop.
    "llama-like": r"""
{%- macro header(role) -%}
<|start|>{{ role }}<|end|>

{% endmacro -%}
{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- header('system') }}
{{- "Today Date: " + date_string + "\n" }}
{%- if tools is not none %}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\n\n" }}
    {%- endfor %}
{%- endif %}
{{- system_message }}
{{- eos_token }}
{%- for message in messages %}
    {%- if message.role == 'note' %}{% continue %}{% endif %}
    {%- if message.role == 'stop' %}{% break %}{% endif %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) and message.role in ['user', 'assistant'] and not message.tool_calls %}
        {{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
    {%- endif %}
    {%- if message.tool_calls is defined and message.tool_calls %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("This model only supports single tool-calls at once!") }}
        {%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- header('assistant') }}
        {{- call.name + "(" }}
        {%- for name, value in call.arguments | items %}
            {{- name + "=" + (value | tojson(ensure_ascii=true)) }}
            {%- if not loop.last %}
                {{- ", " }}
            {%- endif %}
        {%- endfor %}
        {{- ")" + eos_token }}
        {{- message.tool_calls }}
    {%- else %}
        {{- header(message['role']) + message['content'] | trim + eos_token }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- header('assistant') }}
{%- endif %}
""".lstrip("\n"),
    # Marks on lines of their own, where trim_blocks and lstrip_blocks decide; variables set within; content in parts.
    "marks": r"""
{% set tag = 'outer' %}
{% for message in messages %}
<{{ message.role }}>
    {% if message.role == 'assistant' %}
    {% generation %}
    {% set tag = 'inner' %}
{{ message.content }}[{{ tag }}]
    {% endgeneration %}
  {%- generation -%}  
  twice
  {%- endgeneration %}  
[{{ tag }}] {{ loop.index }}/{{ loop.length }} {{ loop.first }} {{ none }} {{ 1.5 }} {{ missing }}
    {% elif message.content is string %}
{{ message.content }}
    {% else %}
        {% for part in message.content if part.type == 'text' %}
{{ part['text'] | upper }}{{ ', ' if not loop.last }}
        {% endfor %}
    {% endif %}
{% endfor %}
{{ messages | map(attribute='role') | join(',') }}
{{ (messages | selectattr('role', 'equalto', 'user') | list | length) ~ ' of ' ~ messages | length }}
{{ 'x' is sequence }} {{ {} is iterable }} {{ [1, 'a', none, true, {'k': 0.00001}] }} {{ 7 // 2 }} {{ 7 / 2 }}
{{ extra | default('none given') }} {{ "%s!" | format('so') }} {{ ['b', 'a'] | sort | first }}
""".lstrip("\n"),
}

# Line ends of Windows and of old, white space that is Python's alone, special tokens.
TEMPLATES["windows"] = (
    "{% for message in messages %}\r\n"
    "[{{ message.role }}]\r{{ message.content | trim }}|{{ message.content.strip() }}|{{ message.content.lstrip() }}|"
    "{{ message.content.rstrip() }}|{{ message.content.split() }}|{{ message.content.isspace() }}|"
    "{{ message.content.strip(' .') }}|{{ message.content | trim('.') }}\r\n"
    "{% endfor %}\r\n"
    "{{ 'a\\r\\nb' }} {{ pad_token }} {{ unk_token }} {{ cls_token }} {{ sep_token is defined }}\r\n"
)
# What is not there, one question a template.
UNDEFINED = [
    "{{ missing }}", "{{ messages[0].missing }}", "{{ missing.more }}", "{{ missing['more'] }}", "{{ messages[9] }}",
    "{{ missing is defined }}", "{{ missing is none }}", "{{ missing == none }}", "{{ missing == missing }}",
    "{{ missing != 1 }}", "{{ 'a' ~ missing }}", "{{ 'a' + missing }}", "{{ missing + 'a' }}", "{{ missing + 1 }}",
    "{{ missing | default('d') }}", "{{ none | default('d') }}", "{{ '' | default('d', true) }}", "{{ missing | length }}",
    "{% for x in missing %}x{% else %}none{% endfor %}", "{{ 'a' in missing }}", "{{ missing in 'abc' }}",
    "{{ not missing }}", "{{ missing or 'b' }}", "{{ missing and 'b' }}", "{{ missing | trim }}", "{{ missing | upper }}",
    "{{ missing | list }}", "{{ missing | join(',') }}", "{{ missing | string }}", "{{ [missing] }}", "{{ {'a': missing} }}",
    "{{ missing | tojson }}", "{{ [missing] | tojson }}", "{{ missing() }}", "{{ missing.strip() }}", "{{ missing is string }}",
    "{{ missing is iterable }}", "{{ missing is sequence }}", "{{ missing is mapping }}", "{{ missing > 1 }}", "{{ missing if true }}", "{{ 'a' if false }}",
    "{{ missing | int }}", "{{ missing | first }}", "{{ missing | replace('a', 'b') }}", "{{ missing[:1] }}", "{{ -missing }}",
    "{% set x = missing %}{{ x is defined }}", "{{ messages | map(attribute='missing') | list | length }}",
    "{{ messages | selectattr('missing') | list | length }}", "{{ missing is sameas none }}", "{{ missing | safe }}",
]
TEMPLATES |= {f"undefined: {question}": question for question in UNDEFINED}

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather; it's \"good\" to know, à propos",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}, "days": {"type": "integer"}}, "required": ["place"]},
    },
}
TURNS = [
    {"role": "system", "content": "Be kind.\n"},
    {"role": "user", "content": "  What is {{ 1 + 1 }}? <b>'é' & \"東京\"</b>\n"},
    {"role": "assistant", "content": " It's 2.\n\nSure. "},
    {"role": "user", "content": "Und 🦀?"},
    {"role": "assistant", "content": "\n3"},
]
CALLS = [
    {"role": "user", "content": "Weather?"},
    {
        "role": "assistant",
        "content": "",
        "name": None,
        "tool_calls": [
            {"type": "function", "function": {"name": "weather", "arguments": {"place": "Zürich", "days": 2, "at": [1.0, 0.00001, 1e16, True, None], "b": {"z": {}, "a": []}}}}
        ],
    },
    {"role": "tool", "content": "{\"sun\": true}", "tool_calls": None},
    {"role": "tool", "content": "rain"},
    {"role": "assistant", "content": None, "thinking": "Both?\n"},
    {"role": "assistant", "content": "Sun."},
]
THOUGHTS = [
    {"role": "user", "content": "1+1?"},
    {"role": "assistant", "content": "<think>\neasy\n</think>\n\n2"},
    {"role": "user", "content": "2+2?"},
    {"role": "assistant", "content": "<think>\neasier\n</think>\n\n4"},
]
PARTS = [
    {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "image"}, {"type": "text", "text": "two"}]},
    {"role": "assistant", "content": "three"},
    {"role": "user", "content": "four"},
    {"role": "assistant", "content": "five"},
]
ROWS = {
    "turns": {"messages": TURNS},
    "question": {"messages": TURNS[:2]},
    "no-system": {"messages": TURNS[1:]},
    "calls": {"messages": CALLS, "tools": [WEATHER]},
    "calls-without-tools": {"messages": CALLS[:2]},
    "thoughts": {"messages": THOUGHTS},
    "no-thoughts": {"messages": THOUGHTS, "chat_template_kwargs": {"enable_thinking": False, "xml_tools": [WEATHER, "it's"]}},
    "asks-not-to-think": {"messages": [{"role": "system", "content": "Short. /no_think "}, *TURNS[1:]]},
    "parts": {"messages": PARTS},
    "unknown-role": {"messages": [*TURNS[:2], {"role": "wizard", "content": "abra"}]},
    "not-alternating": {"messages": [*TURNS[1:2], *TURNS[1:]]},
    "notes": {"messages": [*TURNS[1:4], {"role": "note", "content": "x"}, {"role": "stop", "content": "y"}, {"role": "user", "content": "unseen"}]},
    "dated": {"messages": TURNS, "chat_template_kwargs": {"date_string": "1 Jan 2000", "extra": "given"}},
}

# Rows whose last turn is left open, to be continued.
OPEN = {
    "open": {"messages": [*TURNS[1:2], {"role": "assistant", "content": "Sure, it is"}]},
    "open-behind-blanks": {"messages": [*TURNS, *TURNS[3:4], {"role": "assistant", "content": "  it is \n"}]},
    "open-and-empty": {"messages": [*TURNS[1:2], {"role": "assistant", "content": ""}]},
    "open-twice-the-same": {"messages": [*TURNS[1:2], {"role": "assistant", "content": "user"}]},
}
ROWS |= OPEN | {"white": {"messages": [{"role": "user", "content": "\x1c\x85 a\x1fb\xa0. \x1d"}, {"role": "assistant", "content": "\x1e"}]}}

# Rows that are rendered with the generation prompt as well.
PROMPTED = ("question", "calls-without-tools", "no-thoughts")


class Day(datetime.datetime):
    """The day that remit's `strftime_now` always names."""

    @classmethod
    def now(cls, tz=None):
        return cls(2024, 7, 26)


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    chat_template_utils.datetime = Day
    templates = {name: (BUILT_IN / f"{name}.jinja").read_text() for name in ("chatml", "tulu")} | TEMPLATES
    tokenizer = byte_tokenizer()
    cases = [
        record(tokenizer, name, template, row_name, row, add_generation_prompt)
        for name, template in templates.items()
        for row_name, row in (ROWS.items() if not name.startswith("undefined") else [("question", ROWS["question"])])
        for add_generation_prompt in ((False, True) if row_name in PROMPTED and not name.startswith("undefined") else (False,))
    ]
    rows = {name: json.dumps(row, ensure_ascii=False) for name, row in ROWS.items()}
    print(json.dumps({"templates": TEMPLATES, "tokens": TOKENS, "rows": rows, "cases": cases}, ensure_ascii=False, indent=1))


def byte_tokenizer():
    """One token a byte, so that assistant masks are exact to the byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **TOKENS)


def record(tokenizer, name, template, row_name, row, add_generation_prompt):
    """One case: the text and the assistant's parts of it, or null where the template refuses."""
    case = {"template": name, "row": row_name, "add_generation_prompt": add_generation_prompt}
    options = {
        "chat_template": template,
        "tools": row.get("tools"),
        "add_generation_prompt": add_generation_prompt,
        "continue_final_message": row_name in OPEN,
        **row.get("chat_template_kwargs", {}),
    }
    messages = json.loads(json.dumps(row["messages"]))
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, **options)
    except Exception as error:
        return case | {"text": None, "error": str(error), "open": row_name in OPEN}
    case["text"] = text
    case["open"] = row_name in OPEN
    if row_name not in OPEN and "generation %}" in template or row_name not in OPEN and "generation -%}" in template:
        encoded = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True, **options)
        case["spans"] = spans(tokenizer, encoded["input_ids"], encoded["assistant_masks"])
    return case


def spans(tokenizer, ids, mask):
    """The texts of the runs of masked tokens."""
    found, run = [], []
    for token, counts in [*zip(ids, mask, strict=True), (None, 0)]:
        if counts:
            run.append(token)
        elif run:
            found.append(tokenizer.decode(run))
            run = []
    return found


if __name__ == "__main__":
    main()
