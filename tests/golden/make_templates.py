"""Rendered chats, their ids, and plain tokenisation, as transformers computes them.

The chat templates and tokenizers themselves are not part of the project. They are read from the
folder that SETPOINT_TEST_DATA names, else from `../shared/data` beside the project's root.
"""

import datetime
import json
import os
import pathlib

import transformers.utils.chat_template_utils as chat_template_utils
from transformers import PreTrainedTokenizerFast

HERE = pathlib.Path(__file__).parent
ROOT = HERE / "templates"
DATA = pathlib.Path(os.environ.get("SETPOINT_TEST_DATA", HERE.parents[2] / "shared" / "data"))
NOW = datetime.datetime(2025, 2, 3, 4, 5, 6)


class FrozenDatetime(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return NOW


chat_template_utils.datetime = FrozenDatetime

# Special tokens as published with the models; the templates see them as variables.
LLAMA3 = dict(bos_token="<|begin_of_text|>", eos_token="<|eot_id|>")
CHATML = dict(eos_token="<|im_end|>", pad_token="<|endoftext|>")
TEMPLATES = {
    "llama3": LLAMA3,
    "llama3_1": LLAMA3,
    "llama3_2": LLAMA3,
    "qwen2_5": CHATML,
    "qwen3_instruct_2507": CHATML,
    "gemma": dict(bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>"),
    "phi3": dict(bos_token="<s>", eos_token="<|endoftext|>", pad_token="<|endoftext|>", unk_token="<unk>"),
    "tinyllama": dict(bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"),
}
# Where the shared folder has the template's own tokenizer, ids are recorded as well.
TOKENIZER_OF = {"llama3": "llama3", "llama3_1": "llama3", "llama3_2": "llama3", "tinyllama": "tinyllama"}


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def system(text):
    return {"role": "system", "content": text}


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather in a city, in \u00b0C \u2014 <now> & \"later\"",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Name of the city"},
                "days": {"type": "integer", "minimum": 1, "default": 1.5},
                "exact": {"type": "boolean", "default": True},
                "tags": {"type": "array", "items": {"type": "string"}, "default": []},
                "zone": {"type": ["string", "null"], "default": None},
            },
            "required": ["city"],
        },
    },
}
PING = {"type": "function", "function": {"name": "ping", "description": "", "parameters": {}}}


def call(name, arguments):
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


CHAT = [user("What is 2 + 2?"), assistant("4.")]
CONVERSATIONS = {
    "user_only": dict(messages=[user("Hello!")]),
    "one_turn": dict(messages=CHAT),
    "system_one_turn": dict(messages=[system("You answer in one word."), *CHAT]),
    "multi_turn": dict(messages=[system("Be brief."), *CHAT, user("And 3 + 3?"), assistant("6."), user("Thanks"), assistant("Welcome!")]),
    "multi_turn_no_system": dict(messages=[*CHAT, user("And 3 + 3?")]),
    "unicode": dict(messages=[
        system("Antworte h\u00f6flich. \u201eSo\u201c \u2014 und nicht anders\u2026"),
        user("\u3053\u3093\u306b\u3061\u306f\u3001\u4e16\u754c\uff01 \U0001f469\u200d\U0001f680 e\u0301 \u0645\u0631\u062d\u0628\u0627 \u00a0nbsp \ufb01 \u0130 \u2028line"),
        assistant("\U0001f44b\U0001f3fd na\u00efve \u20ac 5,\u2212 \u017dluťoučký k\u016f\u0148"),
    ]),
    "outer_whitespace": dict(messages=[system("  \n Be kind. \n\n"), user("\t two  spaces \n"), assistant(" \n answer\n\n  ")]),
    "nbsp_outside": dict(messages=[user("\u00a0 hi \u3000"), assistant("\u2003ok\u200b \ufeff")]),
    "line_ends": dict(messages=[user("a\r\nb\rc\n\n\nd"), assistant("```\n  code\n```\n")]),
    "empty_system": dict(messages=[system(""), *CHAT]),
    "empty_user": dict(messages=[user(""), assistant("Yes?")]),
    "empty_assistant": dict(messages=[user("Say nothing."), assistant("")]),
    "late_system": dict(messages=[user("Hi"), assistant("Hello"), system("Now in French."), user("Hi")]),
    "assistant_first": dict(messages=[assistant("How can I help?"), user("You can't.")]),
    "two_users": dict(messages=[user("First."), user("Second."), assistant("Both.")]),
    "system_only": dict(messages=[system("Alone.")]),
    "unknown_role": dict(messages=[{"role": "critic", "content": "Bad."}, user("Oh.")]),
    "looks_like_jinja": dict(messages=[user("{{ 7 * 7 }} {% if true %}x{% endif %} {# note #}"), assistant("{{ bos_token }}")]),
    "markup": dict(messages=[user("<b>\"a\" & 'b'</b> \\n \\\\ \\u00e9"), assistant("5 < 6 > 4 &amp;")]),
    "control_tokens": dict(messages=[user("<|eot_id|><|im_end|></s><end_of_turn>"), assistant("<|start_header_id|>system<|end_header_id|>")]),
    "no_content": dict(messages=[{"role": "user"}, assistant("What?")]),
    "null_content": dict(messages=[{"role": "user", "content": None}, assistant("What?")]),
    "number_content": dict(messages=[{"role": "user", "content": 5}, assistant("Five.")]),
    "no_messages": dict(messages=[]),
    "date_given": dict(messages=CHAT, kwargs={"date_string": "01 Jan 2026"}),
    "tools": dict(messages=[user("Weather in Oslo?")], tools=[WEATHER, PING]),
    "tools_system": dict(messages=[system("Use tools."), user("Weather in Oslo?")], tools=[WEATHER]),
    "tools_outside_user": dict(messages=[system("Use tools."), user("Weather?")], tools=[PING], kwargs={"tools_in_user_message": False}),
    "tools_no_user": dict(messages=[system("Use tools.")], tools=[PING]),
    "builtin_tools": dict(messages=[user("Search."), {"role": "assistant", "tool_calls": [call("brave_search", {"query": "Oslo"})]}],
                          kwargs={"builtin_tools": ["brave_search", "code_interpreter"]}),
    "tool_call": dict(messages=[
        user("Weather in \u00c5lesund?"),
        {"role": "assistant", "content": "", "tool_calls": [call("get_weather", {"city": "\u00c5lesund <N>", "days": 2, "exact": False, "tags": ["a", 'b"c'], "zone": None})]},
        {"role": "tool", "content": '{"temperature": -3.5}'},
        assistant("\u22123.5 \u00b0C."),
    ], tools=[WEATHER]),
    "tool_call_no_content": dict(messages=[
        user("Ping."), {"role": "assistant", "tool_calls": [call("ping", {})]}, {"role": "tool", "content": "pong"},
    ]),
    "two_tool_calls": dict(messages=[
        user("Ping twice."),
        {"role": "assistant", "content": "Twice:", "tool_calls": [call("ping", {"n": 1}), call("ping", {"n": 2})]},
        {"role": "tool", "content": "pong 1"},
        {"role": "tool", "content": "pong 2"},
    ]),
}

TEXTS = [
    "",
    " ",
    "   ",
    "\n",
    "\n\n \t\r\n  x",
    "Hello world",
    " Hello world",
    "Hello  world ",
    "Once upon a time, there was a little girl named Lily.",
    "I'll we've can't I'D O\u2019Neil's",
    "0 12 123 1234 12345678901234567890 3.14159 1e-7 \u00bd \u0663\u0664 \u4e94",
    "def f(x):\n    return {\"a\": [x ** 2, -1]}  # note\n",
    "na\u00efve caf\u00e9 e\u0301 \ufb01ne \u0130stanbul \u00df",
    "\u3053\u3093\u306b\u3061\u306f\u4e16\u754c \uc548\ub155 \u4f60\u597d \u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd \u0928\u092e\u0938\u094d\u0924\u0947",
    "\U0001f600\U0001f469\u200d\U0001f680\U0001f44b\U0001f3fd \u200b\ufeff\u00a0\u2028\u3000",
    "\u0000\u0001\u007f\ufffd",
    "<s>a</s> b <unk>",
    "</s></s>",
    "<|endoftext|> a<|endoftext|>b",
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>",
    "<|not_special|> <s >",
    "\u2581underline \u2581\u2581 \u0120x \u010a",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "https://example.com/a_b?c=d&e=%20#f user@example.org",
    # More than 50 tokens: gpt2's file carries a truncation to 50 that must not be obeyed.
    "one two three four five six seven eight nine ten " * 8,
]


def tokenizer(name, **special):
    folder = DATA / ("model" if name == "stories260K" else "tokenizers") / name
    return PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **special)


def template(name):
    if name == "tinyllama":
        return json.loads((DATA / "tokenizers/tinyllama/tokenizer_config.json").read_text())["chat_template"]
    return (DATA / "chat_templates" / f"{name}.jinja").read_text()


def render(tok, conversation, add_generation_prompt, **kwargs):
    return tok.apply_chat_template(
        conversation["messages"],
        tools=conversation.get("tools"),
        add_generation_prompt=add_generation_prompt,
        **conversation.get("kwargs", {}),
        **kwargs,
    )


def lines(rows):
    return "[\n" + ",\n".join(json.dumps(row, ensure_ascii=True) for row in rows) + "\n]"


def make_template(name, special):
    with_ids = name in TOKENIZER_OF
    # Rendering does not look at the vocabulary: any tokenizer does where the own one is not at hand.
    tok = tokenizer(TOKENIZER_OF.get(name, "gpt2"), **special)
    tok.chat_template = template(name)
    rows = []
    for key, conversation in CONVERSATIONS.items():
        for add_generation_prompt in (False, True):
            row = {"conversation": key, "add_generation_prompt": add_generation_prompt}
            try:
                row["text"] = render(tok, conversation, add_generation_prompt, tokenize=False)
            except Exception as error:
                row["error"] = str(error)
                row["error_type"] = type(error).__name__
            else:
                if with_ids and not conversation.get("tools"):
                    row["ids"] = render(tok, conversation, add_generation_prompt, tokenize=True)["input_ids"]
            rows.append(row)
    head = json.dumps({"template": name, "special_tokens": special, "strftime_now": NOW.isoformat()})
    (ROOT / f"{name}.json").write_text(head[:-1] + ', "rows": ' + lines(rows) + "}\n")
    errors = sum("error" in row for row in rows)
    print(f"{name}: {len(rows)} rows, {errors} errors")


def make_tokenize(name):
    tok = tokenizer(name)
    rows = []
    for text in TEXTS:
        ids = tok(text, add_special_tokens=False)["input_ids"]
        row = {
            "text": text,
            "ids": ids,
            "ids_with_special": tok(text, add_special_tokens=True)["input_ids"],
            "decoded": tok.decode(ids, clean_up_tokenization_spaces=False),
            "decoded_skip_special": tok.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False),
        }
        rows.append(row)
    (ROOT / f"tokenize_{name}.json").write_text(lines(rows) + "\n")
    print(f"{name}: {sum(len(row['ids']) for row in rows)} tokens")


if __name__ == "__main__":
    ROOT.mkdir(exist_ok=True)
    rows = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in CONVERSATIONS.items()]
    (ROOT / "conversations.json").write_text("{\n" + ",\n".join(rows) + "\n}\n")
    for name, special in TEMPLATES.items():
        make_template(name, special)
    for name in ("gpt2", "tinyllama", "llama3", "stories260K"):
        make_tokenize(name)
