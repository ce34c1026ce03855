"""How the cost of a training step grows with the length of responses, their number, the vocabulary and the layers.

usage: python benches/growth/run.py --python VENV/bin/python [--setpoint target/release/setpoint] [--steps 6] [--work DIR]

DRO on random weights and words, reference precomputed, two prompts a step. VENV has what benches/peer/requirements.txt pins (it makes the
models). A step is the median of the steps but the first, which takes memory from the system; the peak is that of the whole process.
Nothing else should run on the machine.
"""

import argparse
import json
import pathlib
import random
import statistics
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "peer"))
from run import MAKE_MODEL, make_tokenizer, run  # noqa: E402

BASE = dict(hidden_size=256, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, intermediate_size=704, vocab_size=32000,
            tie_word_embeddings=True)


def parameters(shape):
    d, g = shape["hidden_size"], shape["num_key_value_heads"] / shape["num_attention_heads"]
    return shape["vocab_size"] * d + shape["num_hidden_layers"] * (2 * d * d * (1 + g) + 3 * d * shape["intermediate_size"])


def measure(args, prompt, response, responses, **changes):
    """Seconds of a step, the peak in bytes, and what of it is not weights, gradients and optimizer."""
    shape = {**BASE, **changes}
    model = args.work / "-".join(f"{key[0]}{value}" for key, value in sorted(shape.items()))
    if not (model / "tokenizer_config.json").exists():
        run([args.python, "-c", MAKE_MODEL, model, json.dumps(shape)])
        make_tokenizer(model)
    rng = random.Random(0)
    text = lambda n: " ".join(f"w{rng.randrange(30000)}" for _ in range(n))
    rows = [dict(prompt=text(prompt), responses=[" " + text(response) for _ in range(responses)],
                 rewards=[rng.random() for _ in range(responses)]) for _ in range(2 * args.steps)]
    data, folder = args.work / "rows.jsonl", args.work / "run"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    subprocess.run(["rm", "-rf", folder], check=True)
    settings = ["train.batch_size=2", "train.learning_rate=1e-6", "samples.prompts=0", "data.text_prompts=plain", "encode.max_length=4096",
                "encode.max_prompt_length=2048", "align.prompt_term=off"]
    _, peak, _ = run([args.setpoint, "align", "--model", model, "--data", data, "--run", folder]
                     + [part for setting in settings for part in ("--set", setting)])
    seconds = [json.loads(line)["step_seconds"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return statistics.median(seconds[1:]), peak, peak - 16 * parameters(shape)


def table(title, columns, rows):
    print(f"\n### {title}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in rows:
        print(f"| {' | '.join(str(cell) for cell in row)} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True)
    parser.add_argument("--setpoint", type=pathlib.Path, default=pathlib.Path("target/release/setpoint"))
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("runs/growth"))
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    mega = lambda count: f"{count / 1e6:.0f}"

    def lengths():
        for response in [64, 128, 256, 512, 1024, 2048]:
            seconds, peak, rest = measure(args, 32, response, 2)
            tokens = 2 * (32 + 2 * response)
            yield response, tokens, f"{seconds:.3f}", f"{seconds / tokens * 1e6:.0f}", mega(peak), mega(rest)

    def numbers():
        first = None
        for responses in [1, 2, 4, 8, 16]:
            seconds, peak, _ = measure(args, 256, 32, responses)
            first = first or seconds
            yield responses, 2 * (256 + 32 * responses), f"{seconds:.3f}", f"{seconds / first:.2f}", responses, mega(peak)

    def vocabularies():
        for vocab in [32000, 64000, 128000]:
            seconds, peak, rest = measure(args, 32, 256, 2, vocab_size=vocab)
            yield vocab, f"{seconds:.3f}", mega(peak), mega(rest), mega(4 * vocab * 2 * 2 * 256)

    def depths():
        for layers in [2, 4, 8, 16]:
            seconds, peak, rest = measure(args, 32, 256, 2, num_hidden_layers=layers)
            yield layers, f"{seconds:.3f}", mega(peak), mega(rest)

    table("Length: two responses behind prompts of 32 tokens",
          ["response, tokens", "tokens a step", "seconds a step", "µs a token", "peak MB", "without the state"], lengths())
    table("Responses of 32 tokens behind prompts of 256: a prompt is computed once",
          ["responses", "tokens a step", "seconds a step", "÷ one response", "÷ if each had its own prompt", "peak MB"], numbers())
    table("Vocabulary: 1024 response tokens a step",
          ["vocabulary", "seconds a step", "peak MB", "without the state", "MB that all logits would take"], vocabularies())
    table("Layers", ["layers", "seconds a step", "peak MB", "without the state"], depths())


if __name__ == "__main__":
    main()
