"""Rendered chats of the model families, as transformers renders them.

The chat templates are part of this folder (family_templates/README.md names their sources and licences). Rendering does not
look at the vocabulary, so a stand-in tokenizer of one word serves all of them.
"""

import json
import pathlib

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

import make_templates
from make_templates import CHAT, CONVERSATIONS, NOW, PING, WEATHER, assistant, call, lines, system, user

ROOT = pathlib.Path(__file__).parent / "family_templates"

CHATML = dict(eos_token="<|im_end|>", pad_token="<|endoftext|>")
MISTRAL = dict(bos_token="<s>", eos_token="</s>", unk_token="<unk>")
TEMPLATES = {
    "qwen3": CHATML,
    "smollm3": dict(bos_token="<|begin_of_text|>", eos_token="<|im_end|>", pad_token="<|im_end|>"),
    "granite3_3": dict(bos_token="<|end_of_text|>", eos_token="<|end_of_text|>", pad_token="<|end_of_text|>"),
    "phi3_5": dict(bos_token="<s>", eos_token="<|endoftext|>", pad_token="<|endoftext|>", unk_token="<unk>"),
    "phi4_mini": dict(bos_token="<|endoftext|>", eos_token="<|endoftext|>", pad_token="<|endoftext|>"),
    "gemma3": dict(bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>"),
    "olmo2": dict(bos_token="<|endoftext|>", eos_token="<|endoftext|>", pad_token="<|pad|>"),
    "mistral_nemo": MISTRAL,
    "ministral3": MISTRAL,
}


def thought(reasoning, text):
    return {"role": "assistant", "content": text, "reasoning_content": reasoning}


INLINE = assistant("<think>\n2 + 2 = 4\n</think>\n\n4.")
TOOL_TURN = {"role": "assistant", "content": "", "tool_calls": [{"id": "abcdefgh1", **call("ping", {"n": 1})}]}
OWN = {
    "thinking_off": dict(messages=CHAT, kwargs={"enable_thinking": False}),
    "thinking_on": dict(messages=CHAT, kwargs={"enable_thinking": True}),
    "thinking_null": dict(messages=CHAT, kwargs={"enable_thinking": None}),
    "thinking_off_multi_turn": dict(messages=[*CHAT, user("And 3 + 3?")], kwargs={"enable_thinking": False}),
    "thought_in_text": dict(messages=[user("What is 2 + 2?"), INLINE]),
    "thought_of_the_past": dict(messages=[user("What is 2 + 2?"), INLINE, user("And 3 + 3?")]),
    "thought_in_both": dict(messages=[user("a"), INLINE, user("b"), assistant("<think>\n\n</think>\n\n6.")]),
    "thought_as_a_field": dict(messages=[user("a"), thought("\nfirst\n\n", "\n\n4."), user("b"), thought("second", "6.")]),
    "thought_empty": dict(messages=[user("a"), thought("", "4.")]),
    "thought_null": dict(messages=[user("a"), thought(None, "4.")]),
    "thought_unclosed": dict(messages=[user("a"), assistant("<think>\nnever ends"), user("b")]),
    "thought_only_closed": dict(messages=[user("a"), assistant("2 + 2 = 4\n</think>\n\n4.")]),
    "thought_twice": dict(messages=[user("a"), assistant("<think>1</think>x<think>2</think>y")]),
    "thought_by_the_user": dict(messages=[user("<think>mine</think> a"), assistant("4.")]),
    "thought_before_a_tool": dict(messages=[
        user("Ping."), {**TOOL_TURN, "reasoning_content": "I should ping."},
        {"role": "tool", "content": "pong", "tool_call_id": "abcdefgh1"}, thought("It works.", "Done."),
    ], tools=[PING]),
    "switch_in_the_system": dict(messages=[system("Be brief. /no_think"), *CHAT]),
    "switch_on_in_the_system": dict(messages=[system("/think Be brief."), *CHAT], kwargs={"enable_thinking": False}),
    "granite_thinking": dict(messages=CHAT, kwargs={"thinking": True}),
    "granite_documents": dict(messages=[user("Who?")], kwargs={
        "documents": [{"doc_id": 1, "text": "Ada."}, {"doc_id": 2, "text": "Zoë \u2014 \"Z\"."}], "controls": {"citations": True, "hallucinations": True}}),
    "granite_controls": dict(messages=CHAT, kwargs={"controls": {"length": "short", "originality": "abstractive"}}),
    "ids_of_calls": dict(messages=[user("Ping."), TOOL_TURN, {"role": "tool", "content": "pong", "tool_call_id": "abcdefgh1"}, assistant("Done.")],
                         tools=[WEATHER, PING]),
    "tools_as_text": dict(messages=[{"role": "system", "content": "Use tools.", "tools": json.dumps([PING["function"]])}, *CHAT]),
    "tools_null": dict(messages=[{"role": "system", "content": "Be kind.", "tools": None}, *CHAT]),
    "parts": dict(messages=[
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": [{"type": "text", "text": " What is "}, {"type": "text", "text": "2 + 2? "}]},
        {"role": "assistant", "content": [{"type": "text", "text": "4."}]},
    ]),
    "parts_of_thought": dict(messages=[
        user("a"), {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "4."}]},
    ]),
    "user_before_the_end": dict(messages=[*CHAT, user("And?"), assistant("6."), user("Fine.")]),
}


def stand_in(special):
    vocabulary = {token: i for i, token in enumerate(["a", *sorted(set(special.values()))])}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(vocabulary, unk_token="a")), **special)


def make(name, special, conversations):
    tok = stand_in(special)
    tok.chat_template = (ROOT / f"{name}.jinja").read_text()
    rows = []
    for key, conversation in conversations.items():
        for add_generation_prompt in (False, True):
            row = {"conversation": key, "add_generation_prompt": add_generation_prompt}
            try:
                row["text"] = make_templates.render(tok, conversation, add_generation_prompt, tokenize=False)
            except Exception as error:
                row["error"] = str(error)
                row["error_type"] = type(error).__name__
            rows.append(row)
    head = json.dumps({"template": name, "special_tokens": special, "strftime_now": NOW.isoformat()})
    (ROOT / f"{name}.json").write_text(head[:-1] + ', "rows": ' + lines(rows) + "}\n")
    errors = sum("error" in row for row in rows)
    print(f"{name}: {len(rows)} rows, {errors} errors")


if __name__ == "__main__":
    conversations = CONVERSATIONS | OWN
    rows = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in conversations.items()]
    (ROOT / "conversations.json").write_text("{\n" + ",\n".join(rows) + "\n}\n")
    for name, special in TEMPLATES.items():
        make(name, special, conversations)
