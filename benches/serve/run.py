"""Load on `setpoint serve`: 64 clients, 2,000 requests, none of which may be lost; prints latencies and tokens a second.

usage: python benches/serve/run.py [--setpoint target/release/setpoint] [--model DIR] [--clients 64] [--requests 2000]
                                   [--max-tokens 64] [--batch-size 32] [--work DIR]

Needs Python alone. Without --model the demo's model is trained for some steps, which takes seconds. Each client keeps its
connection and sends its next request when the last one is answered. Requests are of 50 kinds, which differ in prompt, seed,
temperature and length; a fifth of them are streamed. A request is lost if it has no answer with status 200, or one that ends
without a reason. Requests of one kind must have one answer, whatever was in the batch with them: where the answers of a kind
differ, that is printed and the script fails. Latency is the time from sending a request to the end of its answer. Nothing else
should run on the machine, which clients and server share.
"""

import argparse
import collections
import http.client
import itertools
import json
import os
import pathlib
import statistics
import tempfile
import threading
import time

from server import Server, make_model

QUESTIONS = ["How much is two and two?", "Which day comes after Friday?", "Hello.", "Name a colour.", "Count to three."]
KINDS = 50


def kind(index, max_tokens):
    """The body of a kind of request."""
    return {
        "messages": [{"role": "user", "content": f"{QUESTIONS[index % len(QUESTIONS)]} ({index})"}],
        "max_tokens": 1 + (index * 7) % max_tokens,
        "temperature": 0 if index % 4 == 0 else 1,
        "seed": index,
        "stream": index % 5 == 4,
    }


def text_of(body, streamed):
    """The answer's text and why it ends; a stream adds up to them."""
    if not streamed:
        answer = json.loads(body)
        choice = answer["choices"][0]
        return choice["message"]["content"], choice["finish_reason"], answer["usage"]["completion_tokens"]
    events = [line[6:] for line in body.decode().splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]", events[-1]
    text, reason = "", None
    for event in map(json.loads, events[:-1]):
        choice = event["choices"][0]
        text += choice["delta"].get("content", "")
        reason = choice["finish_reason"] or reason
    return text, reason, None


class Load:
    def __init__(self, server, args):
        self.server, self.args = server, args
        self.numbers = itertools.count()
        self.lock = threading.Lock()
        self.seconds, self.tokens = [], 0
        self.lost = collections.Counter()
        self.answers = collections.defaultdict(set)

    def client(self):
        connection = http.client.HTTPConnection(self.server.host, self.server.port, timeout=600)
        while (number := next(self.numbers)) < self.args.requests:
            index = number % KINDS
            body = kind(index, self.args.max_tokens)
            start = time.perf_counter()
            try:
                connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
                response = connection.getresponse()
                data = response.read()
                seconds = time.perf_counter() - start
                if response.status != 200:
                    raise RuntimeError(f"status {response.status}")
                text, reason, tokens = text_of(data, body["stream"])
                if reason not in ("stop", "length"):
                    raise RuntimeError(f"finish_reason {reason}")
            except Exception as error:  # Whatever happens to a request, the others go on.
                connection.close()
                with self.lock:
                    self.lost[f"{type(error).__name__}: {error}"] += 1
                continue
            with self.lock:
                self.seconds.append(seconds)
                self.tokens += tokens or 0
                self.answers[index].add((text, reason))
        connection.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setpoint", default="target/release/setpoint")
    parser.add_argument("--model", type=pathlib.Path)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path(tempfile.gettempdir()) / "setpoint-serve")
    args = parser.parse_args()
    model = args.model or make_model(args.setpoint, args.work)
    with Server(args.setpoint, model, "--set", f"generate.batch_size={args.batch_size}") as server:
        load = Load(server, args)
        threads = [threading.Thread(target=load.client) for _ in range(args.clients)]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - start
        connection = http.client.HTTPConnection(server.host, server.port, timeout=60)
        connection.request("GET", "/metrics")
        figures = dict(line.rsplit(" ", 1) for line in connection.getresponse().read().decode().splitlines() if line[0] != "#")
    answered, lost = len(load.seconds), sum(load.lost.values())
    quantile = lambda share: sorted(load.seconds)[min(answered - 1, int(share * answered))] if answered else float("nan")
    generated, passes = (float(figures[f"setpoint_{name}_total"]) for name in ("generated_tokens", "passes"))
    print(f"{args.requests} requests by {args.clients} clients in {seconds:.1f} s on {os.cpu_count()} CPUs: "
          f"{answered} answered, {lost} lost, {answered / seconds:.1f} requests and {generated / seconds:.0f} tokens a second")
    print(f"latency: median {quantile(0.5):.3f} s, p95 {quantile(0.95):.3f} s, p99 {quantile(0.99):.3f} s, "
          f"mean {statistics.fmean(load.seconds or [float('nan')]):.3f} s; {generated / max(passes, 1):.1f} tokens a pass")
    for reason, count in load.lost.most_common():
        print(f"lost {count}: {reason}")
    differing = sorted(index for index, answers in load.answers.items() if len(answers) > 1)
    print(f"kinds of requests with more than one answer: {differing or 'none'}; exit code of the server: {server.code}")
    if lost or differing or server.code != 0 or answered != args.requests:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
