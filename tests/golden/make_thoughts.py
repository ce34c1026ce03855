"""Which tokens of a conversation with thoughts are learned, by transformers' `return_assistant_tokens_mask`.

transformers learns what a template prints between `{% generation %}` and `{% endgeneration %}`. So each template is marked twice:
around whole turns, and around the part of a turn behind its thought. Marks do not change the text, which is checked. The tokenizer
is the small one of setpoint-data's tests (bytes and three merges).
"""

import json
import pathlib

from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast

from make_family_templates import ROOT, thought
from make_templates import PING, assistant, call, lines, user

BEGIN, END = "{%- generation -%}", "{%- endgeneration -%}"
ADDED = ["<bos>", "<eos>", "<|im_start|>", "<|im_end|>", "<|endoftext|>"]

# The generation prompt opens the thought, as those of Qwen3.5 and DeepSeek-R1 do.
OPENED = (
    "{%- for m in messages -%}{{- '<|im_start|>' + m.role + '\n' -}}{%- if m.role == 'assistant' -%}{{- '<think>\n' -}}"
    "WHOLE{{- m.reasoning_content | default('') + '\n</think>\n\n' -}}ANSWER{{- m.content + '<|im_end|>' -}}CLOSE{{- '\n' -}}"
    "{%- else -%}{{- m.content + '<|im_end|>\n' -}}{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n<think>\n' -}}{%- endif -%}"
)


def replaced(source, *pairs):
    for old, new in pairs:
        assert source.count(old) >= 1, old
        source = source.replace(old, new)
    return source


def opened(whole, answer, close):
    return replaced(OPENED, ("WHOLE", whole), ("ANSWER", answer), ("CLOSE", close))


QWEN3 = (ROOT / "qwen3.jinja").read_text()
QWEN3_FROM, QWEN3_TO = "        {%- if loop.index0 > ns.last_query_index %}", "        {%- if message.tool_calls %}"
QWEN3_END = "        {{- '<|im_end|>\\n' }}\n    {%- elif message.role == \"tool\" %}"


def qwen3(whole):
    # The turn's thought and its answer, as the template prints them one by one.
    parts = (
        "{%- set shown = '' %}{%- if loop.index0 > ns.last_query_index and (loop.last or reasoning_content) %}"
        "{%- set shown = '<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' %}{%- set content = content.lstrip('\\n') %}{%- endif %}"
        "{{- '<|im_start|>' + message.role + '\\n' -}}" + (BEGIN if whole else "") + "{{- shown -}}" + ("" if whole else BEGIN) + "{{- content -}}\n"
    )
    turn = QWEN3[QWEN3.index(QWEN3_FROM):QWEN3.index(QWEN3_TO)]
    return replaced(
        QWEN3, (turn, parts), (QWEN3_END, "{{- '<|im_end|>' -}}" + END + "{{- '\\n' -}}\n    {%- elif message.role == \"tool\" %}"))


SMOLLM3 = (ROOT / "smollm3.jinja").read_text()
SMOLLM3_TURN = '{{ "<|im_start|>assistant\\n" + content.lstrip("\\n") + "<|im_end|>\\n" }}'


def smollm3(whole):
    header, end = '{{- "<|im_start|>assistant\\n" -}}', '{{- "<|im_end|>" -}}' + END + '{{- "\\n" -}}'
    if whole:
        turn = header + BEGIN + '{{- content.lstrip("\\n") -}}' + end
    else:
        # The answer begins behind the thought and the line breaks that follow it.
        turn = (header + '{%- set answer = content.lstrip("\\n").split("</think>")[-1].lstrip() -%}'
                '{%- set all = content.lstrip("\\n") -%}{{- all[:all | length - answer | length] -}}' + BEGIN + "{{- answer -}}" + end)
    return replaced(SMOLLM3, (SMOLLM3_TURN, turn))


TEMPLATES = {
    "qwen3": (QWEN3, qwen3(True), qwen3(False)),
    "smollm3": (SMOLLM3, smollm3(True), smollm3(False)),
    "opened": (opened("", "", ""), opened(BEGIN, "", END), opened("", BEGIN, END)),
}

INLINE = assistant("<think>\n2 + 2 = 4\n</think>\n\n4 abab.")
TOOL_TURN = {"role": "assistant", "content": "", "reasoning_content": "I should ping.", "tool_calls": [call("ping", {"n": 1})]}
FIELD = [user("What is 2 + 2?"), thought("2 + 2 = 4 \u2192 a\u00e9\n\nso a b", "4 abab \u20ac.")]
FIELDS = [*FIELD, user("And 3 + 3?"), thought("second", "6.")]
# Of a template: conversations whose thoughts it keeps, and those of which it drops the earlier thoughts.
CONVERSATIONS = {
    "qwen3": (
        {"field": FIELD, "text": [user("What is 2 + 2?"), INLINE], "none": [user("a"), assistant("b")],
         "tool": [user("Ping."), TOOL_TURN, {"role": "tool", "content": "pong"}, thought("It works.", "Done.")]},
        {"fields": FIELDS, "texts": [user("a"), INLINE, user("b"), INLINE]},
    ),
    "smollm3": ({"text": [user("What is 2 + 2?"), INLINE], "texts": [user("a"), INLINE, user("b"), assistant("plain")]}, {}),
    "opened": ({"field": FIELD, "fields": FIELDS}, {}),
}


def small_tokenizer():
    vocab = {char: byte for byte, char in enumerate(bytes_to_chars())}
    text = lambda s: "".join(bytes_to_chars()[byte] for byte in s.encode())
    merges = [("\n", "\n"), (" ", "a"), ("a", "b")]
    for a, b in merges:
        vocab[text(a) + text(b)] = len(vocab)
    tokenizer = Tokenizer(BPE(vocab, [(text(a), text(b)) for a, b in merges]))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tokenizer.decoder = ByteLevelDecoder()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in ADDED])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>")


def bytes_to_chars():
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) if byte in printable else chr(256 + others.index(byte)) for byte in range(256)]


def learned(tok, template, messages, tools):
    tok.chat_template = template
    found = tok.apply_chat_template(messages, tools=tools, return_dict=True, return_assistant_tokens_mask=True)
    return found["input_ids"], "".join(str(m) for m in found["assistant_masks"])


def main():
    tok = small_tokenizer()
    rows = []
    for name, (template, whole, answers) in TEMPLATES.items():
        kept, dropped = CONVERSATIONS[name]
        for key, messages in (kept | dropped).items():
            tools = [PING] if key == "tool" else None
            tok.chat_template = template
            text = tok.apply_chat_template(messages, tools=tools, tokenize=False)
            row = {"template": name, "conversation": key, "messages": messages, "tools": tools, "text": text}
            row["ids"], row["answers"] = learned(tok, answers, messages, tools)
            # Which of the thoughts are learned cannot be said of a template that drops some.
            row["thoughts"] = learned(tok, whole, messages, tools)[1] if key in kept else None
            for marked in (whole, answers):
                tok.chat_template = marked
                assert tok.apply_chat_template(messages, tools=tools, tokenize=False) == text, (name, key)
            rows.append(row)
    head = json.dumps({"opened": TEMPLATES["opened"][0]})
    (pathlib.Path(__file__).parent / "thoughts.json").write_text(head[:-1] + ', "rows": ' + lines(rows) + "}\n")
    print(f"{len(rows)} rows")


if __name__ == "__main__":
    main()
