"""Bytes on the network in a training step on lent devices, counted on the loopback interface.

usage: python benches/remote/traffic.py [--setpoint target/release/setpoint] [--shape small] [--servers 1,2] [--tokens 512] [--rank 0] [--dropout 0]
                                          [--work DIR]

Setpoint is built with `--features remote`. Each server is `setpoint lend --device flex` behind a gate that counts. A run is `setpoint sft` from
random weights, four rows of --tokens / 4 words a step, a word a token. The bytes of a step are those of a run of six steps less those of one of
two, by four. Connections are told apart by the path that they ask a server for. With --rank, an adapter of that rank is trained,
with --dropout also with that dropout.
"""

import argparse
import asyncio
import collections
import json
import pathlib
import shutil
import subprocess
import sys
import threading

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "peer"))
import run  # noqa: E402

# Two layers, for a program that is not optimised.
SHAPES = dict(run.SHAPES, tiny=dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=96,
                                    vocab_size=32000, tie_word_embeddings=True))
STEPS = (2, 6)


class Gate:
    """A server's address that counts the bytes of each kind of connection, to the server and from it."""

    def __init__(self, loop, server):
        self.server, self.counts = server, collections.Counter()
        listening = asyncio.run_coroutine_threadsafe(asyncio.start_server(self.connect, "127.0.0.1", 0), loop).result()
        self.address = "127.0.0.1:%d" % listening.sockets[0].getsockname()[1]

    async def connect(self, reader, writer):
        host, port = self.server.rsplit(":", 1)
        from_server, to_server = await asyncio.open_connection(host, int(port))
        first = await reader.read(1 << 16)
        # "GET /path HTTP/1.1"
        path = first.split(b" ", 2)[1].decode() if first.startswith(b"GET ") else "other"
        self.counts[path, "to"] += len(first)
        to_server.write(first)
        await asyncio.gather(self.pass_on(reader, to_server, (path, "to")), self.pass_on(from_server, writer, (path, "from")),
                             return_exceptions=True)

    async def pass_on(self, reader, writer, kind):
        while part := await reader.read(1 << 16):
            self.counts[kind] += len(part)
            writer.write(part)
            await writer.drain()
        writer.close()


def lend(setpoint):
    server = subprocess.Popen([setpoint, "lend", "--device", "flex", "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, text=True)
    return server, server.stdout.readline().strip().rsplit("remote:", 1)[1]


def sft(args, folder, device, data, steps, settings):
    settings = settings + ["model.template=plain", f"data.path={data}", f"train.max_steps={steps}", "train.epochs=1000", "train.batch_size=4",
                           "train.micro_batch.examples=4"]
    command = [args.setpoint, "sft", "--quiet", "--run", folder, "--device", device]
    command += [part for setting in settings for part in ("--set", setting)]
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(done.stdout)


def make_base(args, model, data):
    """A model for an adapter, which random weights get none of: that of one step."""
    folder = args.work / "base"
    shutil.rmtree(folder, ignore_errors=True)
    sft(args, folder, "flex", data, 1, from_scratch(model))
    return folder / "model"


def from_scratch(model):
    return [f"model.from_scratch={model / 'config.json'}", f"model.tokenizer={model}"]


def train(args, start, data, gates, steps):
    folder = args.work / f"run-{steps}"
    shutil.rmtree(folder, ignore_errors=True)
    sft(args, folder, ",".join(f"remote:{gate.address}" for gate in gates), data, steps, start)
    shutil.rmtree(folder)


def measure(args, loop, start, data, servers):
    lent = [lend(args.setpoint) for _ in range(servers)]
    try:
        gates, counts = [Gate(loop, address) for _, address in lent], []
        for steps in STEPS:
            before = sum((gate.counts for gate in gates), collections.Counter())
            train(args, start, data, gates, steps)
            counts.append(sum((gate.counts for gate in gates), collections.Counter()) - before)
    finally:
        for server, _ in lent:
            server.terminate()
            server.wait()
    few, many = counts
    return {kind: (many[kind] - few[kind]) / (STEPS[1] - STEPS[0]) for kind in sorted(many)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setpoint", type=pathlib.Path, default=HERE.parent.parent / "target/release/setpoint")
    parser.add_argument("--shape", default="small", choices=SHAPES)
    parser.add_argument("--servers", default="1,2")
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--rank", type=int, default=0)
    parser.add_argument("--dropout", type=float, default=0)
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("runs/traffic"))
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    model = args.work / args.shape
    model.mkdir(exist_ok=True)
    config = dict(model_type="llama", max_position_embeddings=2048, rms_norm_eps=1e-5, rope_theta=10000.0, **SHAPES[args.shape])
    (model / "config.json").write_text(json.dumps(config))
    run.make_tokenizer(model)
    text = " ".join(f"w{7 * i % 30000}" for i in range(args.tokens // 4 - 2))
    row = dict(messages=[dict(role="user", content="w1"), dict(role="assistant", content=text)])
    data = args.work / "rows.jsonl"
    data.write_text((json.dumps(row) + "\n") * 4)
    start = from_scratch(model)
    if args.rank:
        start = [f"model.path={make_base(args, model, data)}", f"adapter.rank={args.rank}", f"adapter.dropout={args.dropout}"]
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    print("| servers | connection | bytes of a step to servers | from servers |\n|---|---|---|---|")
    for servers in map(int, args.servers.split(",")):
        found = measure(args, loop, start, data, servers)
        for path in sorted({path for path, _ in found}):
            print(f"| {servers} | `{path}` | {found.get((path, 'to'), 0):,.0f} | {found.get((path, 'from'), 0):,.0f} |", flush=True)


if __name__ == "__main__":
    main()
