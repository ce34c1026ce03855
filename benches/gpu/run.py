"""Full fine-tuning of models of 7 to 9 billion parameters with random weights on one GPU: Setpoint's DRO beside trl's DPO.

usage: python benches/gpu/run.py --python VENV/bin/python [--setpoint target/release/setpoint] [--device cuda]
                                 [--models Llama-3-8B,Qwen2.5-7B-Instruct,EuroLLM-9B-Instruct] [--tokens 2048] [--steps 4] [--work DIR]

VENV has what benches/peer/requirements.txt pins, with torch for the GPU; Setpoint is built with `--features cuda`. The shapes are those of
`models/`. Each row is a prompt of a quarter of --tokens and two responses of three quarters, two rows a step, the reference precomputed on
both sides. Setpoint: bf16 with f32 master weights and moments, stepped inside the backward pass, which rules out clipping. trl: bf16
autocast over f32 weights, gradient checkpointing. The first step is warm-up. Tokens are counted as trl does, each prompt twice; the
share of the peak is of the arithmetic that the parameters need with each prompt once, for both. Peak memory is what nvidia-smi reports of the card, less what
it reported before (on a CPU: of the process). A contender that ends with an error, such as a card that is too small for it, has that as
its line. The peak is the rate of torch's bf16 product of 8192 x 8192 matrices.

`--device flex --models tiny/llama --tokens 64` shows on a CPU that the script works, and nothing else.
"""

import argparse
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import threading

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE.parent / "peer"))
from run import make_tokenizer  # noqa: E402

MAKE_MODEL = """
import sys, torch
from transformers import AutoConfig, AutoModelForCausalLM
torch.manual_seed(0)
config = AutoConfig.from_pretrained(sys.argv[1])
device = "cuda" if sys.argv[3] == "cuda" else "cpu"
with torch.device(device):
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
model.save_pretrained(sys.argv[2])
print(model.num_parameters())
"""

GEMM = """
import sys, time, torch
device, n, dtype = ("cuda", 8192, torch.bfloat16) if sys.argv[1] == "cuda" else ("cpu", 1024, torch.float32)
a, b = (torch.rand(n, n, device=device, dtype=dtype) for _ in range(2))
wait = torch.cuda.synchronize if device == "cuda" else lambda: None
def rate():
    wait()
    start = time.perf_counter()
    a @ b
    wait()
    return 2 * n**3 / (time.perf_counter() - start)
print(sorted(rate() for _ in range(31))[15])
"""


class Failed(Exception):
    pass


def card_bytes():
    """Memory in use on the first card, or None without one."""
    if shutil.which("nvidia-smi") is None:
        return None
    said = subprocess.run(["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"],
                          capture_output=True, text=True)
    return int(said.stdout.split()[0]) * 2**20 if said.returncode == 0 and said.stdout.split() else None


def run(command):
    """Runs a command; answers its output and its peak memory in bytes."""
    before = card_bytes()
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    peak, done = [0], threading.Event()

    def watch():
        while not done.wait(0.2):
            peak[0] = max(peak[0], (card_bytes() or 0) - before)

    watcher = threading.Thread(target=watch) if before is not None else None
    if watcher:
        watcher.start()
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    done.set()
    if watcher:
        watcher.join()
    if process.returncode != 0:
        raise Failed(next((line for line in reversed(output.strip().splitlines()) if "rror" in line), output[-200:]).strip()[:200])
    return output, peak[0] if watcher else usage.ru_maxrss * 1024


def make_rows(folder, tokens, rows):
    rng = random.Random(1)
    text = lambda count: " ".join(f"w{rng.randrange(known_words(folder))}" for _ in range(count))
    prompt, answer = tokens // 4, tokens - tokens // 4 - 2
    pairs = [dict(prompt=text(prompt), chosen=" " + text(answer), rejected=" " + text(answer)) for _ in range(rows)]
    points = [dict(prompt=row["prompt"], responses=[row["chosen"], row["rejected"]], rewards=[1.0, -1.0]) for row in pairs]
    for name, lines in [("pairs", pairs), ("points", points)]:
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def known_words(folder):
    """Words of the benchmark's tokenizer that the model knows."""
    return min(json.loads((folder / "config.json").read_text())["vocab_size"] - 3, 30000)


def setpoint(args, model):
    shutil.rmtree(args.work / "run", ignore_errors=True)
    settings = ["align.method=dro", "align.prompt_term=off", "align.log_z0=auto", "train.batch_size=2", "train.micro_batch={ examples = 2 }", f"train.max_steps={args.steps}",
                "train.epochs=1000", "train.learning_rate=1e-6", "train.max_grad_norm=0", "train.optimizer.in_backward=true",
                "samples.prompts=0", "data.text_prompts=plain", f"encode.max_length={args.tokens}", f"encode.max_prompt_length={args.tokens}"]
    if args.device.startswith("cuda"):
        settings.append("model.dtype=bf16")
    output, peak = run([args.setpoint, "align", "--device", args.device, "--model", model, "--data", model / "points.jsonl",
                        "--run", args.work / "run"] + [part for setting in settings for part in ("--set", setting)])
    lines = [json.loads(line) for line in (args.work / "run" / "metrics.jsonl").read_text().splitlines()]
    reference = re.search(r"([0-9]+) tokens/s", output)
    shutil.rmtree(args.work / "run", ignore_errors=True)
    return [line["step_seconds"] for line in lines], peak, reference and int(reference.group(1))


def trl(args, model):
    device = "cuda" if args.device.startswith("cuda") else "cpu"
    output, peak = run([args.python, HERE.parent / "peer" / "trl_dpo.py", model, model / "pairs.jsonl", args.steps, "precomputed", "bf16", device,
                        "checkpoint"])
    return json.loads(output.strip().splitlines()[-1])["seconds"], peak, None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True)
    parser.add_argument("--setpoint", type=pathlib.Path, default=ROOT / "target/release/setpoint")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--models", default="Llama-3-8B,Qwen2.5-7B-Instruct,EuroLLM-9B-Instruct")
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("runs/gpu"))
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    device = "cuda" if args.device.startswith("cuda") else "cpu"
    rate = float(run([args.python, "-c", GEMM, device])[0].split()[-1])
    print(f"{args.device}: torch's product of matrices at {rate / 1e12:.2f} TFLOP/s; {args.tokens} tokens a response with its prompt, "
          f"two prompts with two responses a step")
    for name in args.models.split(","):
        model = args.work / name.replace("/", "-")
        if not (model / "config.json").exists():
            run([args.python, "-c", MAKE_MODEL, ROOT / "models" / name, model, device])
        parameters = json.loads((model / "config.json").read_text())
        make_tokenizer(model, known_words(model))
        make_rows(model, args.tokens, 4)
        # As trl counts: each prompt with each of its responses. What a step needs has each prompt once.
        tokens, needed = 4 * args.tokens, 4 * args.tokens - 2 * (args.tokens // 4)
        weights = sum(file.stat().st_size for file in model.glob("*.safetensors")) / 2
        table = parameters["vocab_size"] * parameters["hidden_size"]
        used = weights if parameters.get("tie_word_embeddings") else weights - table
        print(f"\n## {name}, {weights / 1e9:.2f} B parameters\n\n| contender | seconds a step | tokens a second | share of the peak | peak GB |\n|---|---|---|---|---|")
        for contender, measure in [("setpoint dro, reference precomputed", setpoint), ("trl dpo, reference precomputed", trl)]:
            try:
                seconds, peak, reference = measure(args, model)
            except Failed as error:
                print(f"| {contender} | {error} | | | |", flush=True)
                continue
            step = sum(seconds[1:]) / max(len(seconds) - 1, 1)
            share = 6 * used * needed / step / rate
            print(f"| {contender} | {step:.3f} | {tokens / step:.0f} | {share:.0%} | {peak / 1e9:.2f} |", flush=True)
            if reference:
                print(f"| its pass over the reference | | {reference} | | |", flush=True)


if __name__ == "__main__":
    main()
