"""The memory that training on a large file takes more than on a small one.

usage: python benches/stream/run.py [--job sft|reward|align] [--method dro] [--setpoint target/release/setpoint] [--size 5GB] [--within 1GB]
                                    [--work DIR] [--keep]

Writes rows of the demo's words to a JSONL file of the given size and to one of 1 MB, and trains a tiny model on each for a few steps: by
`setpoint sft` on conversations, or by `setpoint reward` or `setpoint align` on prompts with two responses and their rewards. Prints the
peak memory of both processes, as their histories note it, the difference, and the difference for each row. With --within, a greater
difference ends the program with code 1. The files are removed, unless --keep says otherwise: the disk needs about three times the size.

Reward models end with scores of all their rows, and methods with a reference begin with those of the reference model, so a large file takes
them hours. `--method nll` and `--method simpo` have no reference.
"""

import argparse
import json
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time

DEMO = pathlib.Path(__file__).parent.parent.parent / "examples" / "demo"
UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}
SMALL = 10**6


def size(text):
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?B?)", text.upper())
    if not found or found[2] not in UNITS:
        raise argparse.ArgumentTypeError(f"{text}: expected a size such as 200MB or 5GB")
    return round(float(found[1]) * UNITS[found[2]])


def words():
    """The words of the demo's conversations, so that the tokenizer knows them."""
    text = (DEMO / "pretrain" / "sft.jsonl").read_text().splitlines()[:2000]
    found = {word for line in text for word in re.findall(r"[A-Za-z]{2,}", line)}
    return sorted(found)


def write(path, length, job, seed=0):
    rng, known, written, rows = random.Random(seed), words(), 0, 0
    text = lambda count: " ".join(rng.choice(known) for _ in range(count))
    with path.open("w") as file:
        while written < length:
            if job == "sft":
                row = {"messages": [{"role": "user", "content": text(rng.randrange(10, 60))},
                                    {"role": "assistant", "content": text(rng.randrange(20, 120))}]}
            else:
                # Both fit the positions of the demo's model.
                row = {"prompt": text(rng.randrange(10, 30)), "responses": [text(rng.randrange(10, 60)) for _ in range(2)],
                       "rewards": [round(rng.gauss(0, 1), 3) for _ in range(2)]}
            written += file.write(json.dumps(row) + "\n")
            rows += 1
    return rows


def call(args, job, data, run, settings):
    settings = [*settings, f"train.max_steps={args.steps}", "train.batch_size=8"]
    settings += [] if job == "reward" else ["samples.prompts=0"]
    command = [args.setpoint, job, "--quiet", "--device", "flex", "--data", data, "--run", run]
    command += [part for setting in settings for part in ("--set", setting)]
    subprocess.run(list(map(str, command)), check=True)


def begin(args, work):
    """The model to start from, as settings: a shape, or for jobs that need one a model that has made a few steps."""
    shape = ["model.from_scratch=" + str(DEMO / "config.json"), "model.tokenizer=" + str(DEMO / "tokenizer")]
    if args.job == "sft":
        return shape
    data, run = work / "begin.jsonl", work / "run-begin"
    shutil.rmtree(run, ignore_errors=True)
    write(data, SMALL // 10, "sft")
    call(args, "sft", data, run, shape)
    return ["model.path=" + str(run / "model")] + (["align.method=" + args.method] if args.job == "align" else [])


def train(args, data, run, settings):
    started = time.monotonic()
    call(args, args.job, data, run, settings)
    events = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    peak = [event["peak_memory"] for event in events if event["event"] == "ended"][-1]
    if peak is None:
        sys.exit("this system does not tell the peak memory of a process")
    return peak, time.monotonic() - started


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", choices=["sft", "reward", "align"], default="sft")
    parser.add_argument("--method", default="dro")
    parser.add_argument("--setpoint", default="target/release/setpoint")
    parser.add_argument("--size", type=size, default="200MB")
    parser.add_argument("--within", type=size)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--work", type=pathlib.Path)
    parser.add_argument("--keep", action="store_true")
    args = parser.parse_args()
    work = args.work or pathlib.Path(tempfile.mkdtemp(prefix="setpoint-stream-"))
    work.mkdir(parents=True, exist_ok=True)
    peaks, counts = {}, {}
    try:
        settings = begin(args, work)
        for name, length in [("small", SMALL), ("large", args.size)]:
            data, run = work / f"{name}.jsonl", work / f"run-{name}"
            shutil.rmtree(run, ignore_errors=True)
            rows = counts[name] = write(data, length, args.job)
            peaks[name], seconds = train(args, data, run, settings)
            print(f"{name}: {data.stat().st_size / 1e6:.0f} MB, {rows} rows, peak {peaks[name] / 1e6:.0f} MB, {seconds:.0f} s", flush=True)
    finally:
        if not args.keep and args.work is None:
            shutil.rmtree(work, ignore_errors=True)
    more = peaks["large"] - peaks["small"]
    each = more / max(counts["large"] - counts["small"], 1)
    print(f"the large file takes {more / 1e6:.0f} MB more than the small one, {each:.0f} bytes a row")
    if args.within is not None and more > args.within:
        sys.exit(f"expected at most {args.within / 1e6:.0f} MB more")


if __name__ == "__main__":
    main()
