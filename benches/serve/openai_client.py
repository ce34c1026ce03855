"""The official `openai` client against `setpoint serve`.

usage: python benches/serve/openai_client.py [--setpoint target/release/setpoint] [--model DIR] [--work DIR]

Needs the package `openai`. Without --model the demo's model is trained for some steps. The server is started twice, with a key
and without. Each check prints a line; the script fails at the first that does not hold.
"""

import argparse
import os
import pathlib
import tempfile

import openai

from server import Server, make_model

MESSAGES = [{"role": "user", "content": "How much is two and two?"}]


def check(name, holds):
    if not holds:
        raise SystemExit(f"failed: {name}")
    print(f"ok: {name}")


def fails(kind, status, call):
    try:
        call()
    except kind as error:
        return error.status_code == status and bool(error.message)
    return False


def check_answers(client, model):
    listed = client.models.list().data
    check("models.list", [entry.id for entry in listed] == [model])
    check("models.retrieve", client.models.retrieve(model).id == model)

    greedy = dict(model=model, messages=MESSAGES, temperature=0, max_completion_tokens=12)
    whole = client.chat.completions.create(**greedy)
    choice = whole.choices[0]
    check("chat.completions", choice.message.role == "assistant" and choice.finish_reason in ("stop", "length"))
    check("usage", whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens)

    chunks = list(client.chat.completions.create(**greedy, stream=True, stream_options={"include_usage": True}))
    text = "".join(part.choices[0].delta.content or "" for part in chunks if part.choices)
    check("a stream adds up to the answer", text == choice.message.content)
    check("a stream ends with its usage", chunks[-1].usage == whole.usage and not chunks[-1].choices)

    with_logprobs = client.chat.completions.create(**greedy, logprobs=True, top_logprobs=3).choices[0]
    content = with_logprobs.logprobs.content
    check("logprobs", len(content) == whole.usage.completion_tokens and all(len(entry.top_logprobs) == 3 for entry in content))
    check("logprobs change nothing", with_logprobs.message.content == choice.message.content)

    sampled = dict(model=model, messages=MESSAGES, temperature=1, top_p=0.9, n=3, max_tokens=8, seed=7)
    texts = lambda answer: [found.message.content for found in answer.choices]
    first = texts(client.chat.completions.create(**sampled))
    check("n answers, the same for the same seed", len(first) == 3 and first == texts(client.chat.completions.create(**sampled)))
    check("others for another seed", first != texts(client.chat.completions.create(**{**sampled, "seed": 8})))

    plain = dict(model=model, prompt="The sum is", temperature=0, max_tokens=12)
    whole = client.completions.create(**plain, logprobs=2).choices[0]
    check("completions", len(whole.logprobs.tokens) == len(whole.logprobs.token_logprobs) == len(whole.logprobs.text_offset))
    stop = whole.text[2:4]
    stopped = client.completions.create(**plain, stop=[stop]).choices[0]
    check("stop", stopped.text == whole.text.split(stop)[0] and stopped.finish_reason == "stop")
    parts = client.completions.create(**plain, stream=True)
    check("completions stream", "".join(part.choices[0].text for part in parts) == whole.text)

    ask = client.chat.completions.create
    check("400", fails(openai.BadRequestError, 400, lambda: ask(model=model, messages=[])))
    check("404", fails(openai.NotFoundError, 404, lambda: ask(model="another", messages=MESSAGES)))
    large = [{"role": "user", "content": "a" * (1 << 20)}]
    check("413", fails(openai.APIStatusError, 413, lambda: ask(model=model, messages=large)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setpoint", default="target/release/setpoint")
    parser.add_argument("--model", type=pathlib.Path)
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path(tempfile.gettempdir()) / "setpoint-serve")
    args = parser.parse_args()
    model = args.model or make_model(args.setpoint, args.work)
    print(f"openai {openai.__version__}")
    os.environ.pop("SETPOINT_API_KEY", None)
    with Server(args.setpoint, model, "--name", "tiny") as server:
        check_answers(openai.OpenAI(base_url=server.url, api_key="none", max_retries=0), "tiny")
    check("the server ended with 0", server.code == 0)
    os.environ["SETPOINT_API_KEY"] = "sk-local-1"
    with Server(args.setpoint, model) as server:
        with_key = openai.OpenAI(base_url=server.url, api_key="sk-local-1", max_retries=0)
        check("a key that fits", with_key.models.list().data[0].id == str(model))
        without = openai.OpenAI(base_url=server.url, api_key="sk-local-2", max_retries=0)
        check("401", fails(openai.AuthenticationError, 401, without.models.list))
    with Server(args.setpoint, model, "--set", "generate.batch_size=1", "--set", "serve.queue=0") as server:
        client = openai.OpenAI(base_url=server.url, api_key="sk-local-1", max_retries=0)
        stream = client.completions.create(model=str(model), prompt="Hello", temperature=1, max_tokens=200, stream=True)
        next(iter(stream))
        busy = lambda: client.completions.create(model=str(model), prompt="Hello", max_tokens=1)
        check("429", fails(openai.RateLimitError, 429, busy))
        stream.close()
    with Server(args.setpoint, model, "--set", "serve.timeout_seconds=0.1") as server:
        client = openai.OpenAI(base_url=server.url, api_key="sk-local-1", max_retries=0)
        slow = lambda: client.completions.create(model=str(model), prompt="Hello", temperature=1, max_tokens=200, n=128)
        check("408", fails(openai.APIStatusError, 408, slow))


if __name__ == "__main__":
    main()
