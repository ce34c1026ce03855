"""Setpoint beside trl: the same checkpoint, the same preference rows, f32, one machine, processes in turn.

usage: python benches/peer/run.py --python VENV/bin/python [--setpoint target/release/setpoint] [--shapes small,mid,wide-vocab]
                                  [--rounds 3] [--rows 16] [--work DIR] [--bf16] [--rank R]

VENV has what requirements.txt pins. Both sides see every row once per epoch, two pairs a step; the second of two epochs is what counts, so
that all have warmed up and all have seen the same rows. Each round runs every contender once; the table has medians over the rounds, and
ratios to the faster of trl's two allocator settings. With --rank, both train a low-rank adapter of all linear maps (trl by peft), whose
reference is the model with the adapter off. Nothing else should run on the machine.
"""

import argparse
import json
import os
import pathlib
import random
import re
import statistics
import subprocess
import time

HERE = pathlib.Path(__file__).parent

SHAPES = {
    # 34 M, 135 M (SmolLM2-135M) and 105 M parameters.
    "small": dict(hidden_size=384, num_hidden_layers=6, num_attention_heads=6, num_key_value_heads=2, intermediate_size=1024,
                  vocab_size=32000, tie_word_embeddings=False),
    "mid": dict(hidden_size=576, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3, intermediate_size=1536,
                vocab_size=49152, tie_word_embeddings=True),
    "wide-vocab": dict(hidden_size=512, num_hidden_layers=8, num_attention_heads=8, num_key_value_heads=8, intermediate_size=1536,
                       vocab_size=151936, tie_word_embeddings=True),
}
# An allocator that keeps its pages, for torch.
KEEP = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "34359738368", "MALLOC_TOP_PAD_": "268435456"}

# The reference's pass over so many times the rows, less that over the rows, has no warm-up in it.
REFERENCE_ROWS = 4

GEMM = """
import time, torch
a, b = torch.rand(2, 2048, 2048)
def rate():
    start = time.perf_counter()
    a @ b
    return 2 * 2048**3 / (time.perf_counter() - start)
print(sorted(rate() for _ in range(31))[15])
"""

MAKE_MODEL = """
import json, sys, torch
from transformers import LlamaConfig, LlamaForCausalLM
torch.manual_seed(0)
LlamaForCausalLM(LlamaConfig(max_position_embeddings=2048, **json.loads(sys.argv[2]))).save_pretrained(sys.argv[1])
"""


def make_tokenizer(folder, known=30000):
    """A word is a token, so that lengths are what was drawn."""
    words = ["<unk>", "<s>", "</s>"] + [f"w{i}" for i in range(known)]
    special = [dict(id=i, content=words[i], single_word=False, lstrip=False, rstrip=False, normalized=False, special=True) for i in range(3)]
    tokenizer = dict(version="1.0", truncation=None, padding=None, added_tokens=special, normalizer=None,
                     pre_tokenizer=dict(type="WhitespaceSplit"), post_processor=None, decoder=None,
                     model=dict(type="WordLevel", vocab={word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(json.dumps(dict(
        tokenizer_class="PreTrainedTokenizerFast", bos_token="<s>", eos_token="</s>", unk_token="<unk>")))


def draw_lengths(count):
    """Tokens of prompts and their two responses as in UltraFeedback: log-normal, prompt and response at most 512 tokens."""
    rng = random.Random(0)
    draw = lambda mu, sigma, low, high: int(min(max(rng.lognormvariate(mu, sigma), low), high))
    prompts = [draw(4.7, 0.9, 8, 256) for _ in range(count)]
    return [(prompt, [draw(5.4, 0.6, 16, 510 - prompt) for _ in range(2)]) for prompt in prompts]


def make_rows(folder, lengths):
    """Pairs, the same as points, and the lengths REFERENCE_ROWS times with other words."""
    rng = random.Random(1)
    text = lambda n: " ".join(f"w{rng.randrange(30000)}" for _ in range(n))
    pair = lambda prompt, answers: dict(prompt=text(prompt), chosen=" " + text(answers[0]), rejected=" " + text(answers[1]))
    point = lambda row: dict(prompt=row["prompt"], responses=[row["chosen"], row["rejected"]], rewards=[1.0, -1.0])
    pairs = [pair(*row) for row in lengths]
    longer = pairs + [pair(*row) for row in lengths * (REFERENCE_ROWS - 1)]
    for name, rows in [("pairs", pairs), ("points", map(point, pairs)), ("pairs-longer", longer), ("points-longer", map(point, longer))]:
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def matrix_work(shape, lengths, rank):
    """Floating-point operations that a step's matrix products need: forward and backward, each prompt once, the head at the responses, nothing
    computed twice."""
    s = SHAPES[shape]
    d, f, h, g = s["hidden_size"], s["intermediate_size"], s["num_attention_heads"], s["num_key_value_heads"]
    block = 2 * d * d + 2 * d * d * g // h + 3 * d * f
    tokens = sum(prompt + sum(answers) for prompt, answers in lengths)
    seen = sum(prompt**2 / 2 + sum(a * (prompt + a / 2) for a in answers) for prompt, answers in lengths)
    head = 2 * s["vocab_size"] * d * sum(sum(answers) for _, answers in lengths)
    forward = s["num_hidden_layers"] * (2 * block * tokens + 4 * d * seen) + head
    # A frozen weight has no gradient.
    return (2 if rank else 3) * forward / (len(lengths) / 2)


def run(command, env=None):
    """Runs a command; answers its output, and the peak of its resident memory in bytes."""
    start = time.perf_counter()
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               env={**os.environ, **(env or {})})
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{command} failed:\n{output[-3000:]}")
    return output, usage.ru_maxrss * 1024, time.perf_counter() - start


def trl(args, model, reference, keep, precision="fp32"):
    steps = args.rows  # two epochs of rows / 2 steps
    output, peak, _ = run([args.python, HERE / "trl_dpo.py", model, args.work / "pairs.jsonl", steps, reference, precision,
                           "cpu", "keep", args.rank], KEEP if keep else None)
    seconds = json.loads(output.strip().splitlines()[-1])["seconds"]
    return sum(seconds[steps // 2:]) / (steps // 2), peak


def setpoint(args, model, method):
    folder = args.work / "run"
    settings = ["train.batch_size=2", "train.learning_rate=1e-6", "samples.prompts=0", "data.text_prompts=plain",
                "encode.max_length=1024", "encode.max_prompt_length=1024", f"align.method={method}"]
    if method == "dro":
        settings.append("align.prompt_term=off")
    if args.rank:
        settings += [f"adapter.rank={args.rank}", f"adapter.alpha={2 * args.rank}"]

    def align(rows, length):
        subprocess.run(["rm", "-rf", folder], check=True)
        data = args.work / f"{'points' if method == 'dro' else 'pairs'}{rows}.jsonl"
        command = [args.setpoint, "align", "--model", model, "--data", data, "--run", folder]
        output, peak, _ = run(command + [part for setting in settings + [length] for part in ("--set", setting)])
        reference = float(re.search(r"reference log-probabilities .* in ([0-9.]+) seconds", output).group(1))
        return [json.loads(line)["step_seconds"] for line in (folder / "metrics.jsonl").read_text().splitlines()], reference, peak

    _, longer, _ = align("-longer", "train.max_steps=1")
    seconds, once, peak = align("", "train.epochs=2")
    step = sum(seconds[len(seconds) // 2:]) / (len(seconds) // 2)
    # Every row passes the reference once; in the loop that would be in the step.
    return step, step + (longer - once) / (REFERENCE_ROWS - 1) * 2 / args.rows, peak


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True)
    parser.add_argument("--setpoint", type=pathlib.Path, default=pathlib.Path("target/release/setpoint"))
    parser.add_argument("--shapes", default="small,mid,wide-vocab")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("runs/peer"))
    parser.add_argument("--rank", type=int, default=0, help="train a low-rank adapter instead of all weights")
    parser.add_argument("--bf16", action="store_true", help="trl in its own default bf16 as well, for information")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    lengths = draw_lengths(args.rows)
    make_rows(args.work, lengths)
    tokens = sum(2 * prompt + sum(answers) for prompt, answers in lengths)
    rate = float(run([args.python, "-c", GEMM])[0].split()[-1])
    print(f"{args.rows} rows, {2 * tokens / args.rows:.0f} tokens a step, {args.rounds} rounds; torch's product of matrices of 2048 x 2048: {rate / 1e9:.0f} GFLOP/s")
    for shape in args.shapes.split(","):
        model = args.work / shape
        if not (model / "config.json").exists():
            run([args.python, "-c", MAKE_MODEL, model, json.dumps(SHAPES[shape])])
            make_tokenizer(model)
        times, peaks = {}, {}
        record = lambda name, seconds, peak: (times.setdefault(name, []).append(seconds), peaks.setdefault(name, []).append(peak))
        for _ in range(args.rounds):
            for method in ["dpo", "dro"]:
                step, looped, peak = setpoint(args, model, method)
                record(f"setpoint {method}, reference precomputed", step, peak)
                record(f"setpoint {method}, reference in the loop", looped, peak)
            for reference, said in [("loop", "reference in the loop"), ("precomputed", "reference precomputed")]:
                for keep in [False, True]:
                    record(f"trl dpo, {said}, {'keeps pages' if keep else 'default allocator'}", *trl(args, model, reference, keep))
                if args.bf16:
                    record(f"trl dpo, {said}, bf16", *trl(args, model, reference, True, "bf16"))
        median = {name: statistics.median(values) for name, values in times.items()}
        peak = {name: statistics.median(values) for name, values in peaks.items()}
        print(f"\n## {shape}\n\n| contender | seconds a step | ÷ trl's faster | peak GB | ÷ trl's | all rounds |\n|---|---|---|---|---|---|")
        for name in times:
            said = "reference in the loop" if "in the loop" in name else "reference precomputed"
            rivals = [other for other in times if other.startswith("trl") and said in other and "bf16" not in other]
            rival = min(rivals, key=lambda other: median[other])
            rounds = " ".join(f"{seconds:.2f}" for seconds in times[name])
            print(f"| {name} | {median[name]:.3f} | {median[name] / median[rival]:.2f} | {peak[name] / 1e9:.2f} "
                  f"| {peak[name] / min(peak[other] for other in rivals):.2f} | {rounds} |", flush=True)
        needed = matrix_work(shape, lengths, args.rank)
        seconds = median["setpoint dpo, reference precomputed"]
        print(f"\nA step's matrix products at torch's rate: {needed / rate:.2f} s, {needed / rate / seconds:.0%} of Setpoint's step.",
              flush=True)


if __name__ == "__main__":
    main()
