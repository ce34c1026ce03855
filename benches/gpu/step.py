"""The step of models of 7 to 9 billion parameters with random weights, full fine-tuning: Setpoint's DRO beside trl's DPO with Liger's kernels.

Each row is a prompt of a quarter of --tokens and two responses of three quarters, two rows a step, the reference precomputed on both sides.
Setpoint: bf16 with f32 master weights and moments, stepped inside the backward pass, which rules out clipping. trl: bf16 autocast over f32
weights, gradient checkpointing, Liger's kernels on a GPU. The first step is warm-up. Tokens are counted as trl does, each prompt twice; the
share of the peak is of the arithmetic that the parameters need with each prompt once, for both. Peak memory is what nvidia-smi reports of
the card, less what it reported before (on a CPU: of the process). The peak is the rate of torch's bf16 product of 8192 x 8192 matrices.
"""

import json
import random
import re
import shutil

from common import HERE, ROOT, Failed, on_cuda, run
from peer import make_tokenizer

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


def setpoint(args, model, seconds):
    folder = args.work / "run"
    shutil.rmtree(folder, ignore_errors=True)
    settings = ["align.method=dro", "align.prompt_term=off", "align.log_z0=auto", "train.batch_size=2", "train.micro_batch={ examples = 2 }",
                f"train.max_steps={args.steps}", "train.epochs=1000", "train.learning_rate=1e-6", "train.max_grad_norm=0",
                "train.optimizer.in_backward=true", "samples.prompts=0", "model.template=plain", "data.text_prompts=plain", f"encode.max_length={args.tokens}",
                f"encode.max_prompt_length={args.tokens}"]
    if on_cuda(args):
        settings.append("model.dtype=bf16")
    failed = None
    try:
        output, peak = run([args.setpoint, "align", "--device", args.device, "--model", model, "--data", model / "points.jsonl", "--run", folder]
                           + [part for setting in settings for part in ("--set", setting)], seconds)
    except Failed as error:
        failed, output, peak = error, error.output, error.peak
    metrics = folder / "metrics.jsonl"
    lines = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
    reference = re.search(r"([0-9]+) tokens/s", output)
    shutil.rmtree(folder, ignore_errors=True)
    return [line["step_seconds"] for line in lines if "step_seconds" in line], peak, reference and int(reference.group(1)), failed


def trl(args, model, seconds):
    device = "cuda" if on_cuda(args) else "cpu"
    command = [args.python, HERE.parent / "peer" / "trl_dpo.py", model, model / "pairs.jsonl", args.steps, "precomputed", "bf16", device,
               "checkpoint", "0", "liger" if on_cuda(args) else "plain"]
    failed = None
    try:
        output, peak = run(command, seconds)
    except Failed as error:
        failed, output, peak = error, error.output, error.peak
    # A line for each step, so that a run that is cut off leaves those before; the last line has all.
    found = [json.loads(line) for line in output.splitlines() if line.startswith("{\"step_seconds\"")]
    return [line["step_seconds"] for line in found], peak, None, failed


def measure(args, results, clock):
    """Measures each model; every contender's line is written as soon as it is known."""
    device = "cuda" if on_cuda(args) else "cpu"
    rate = float(run([args.python, "-c", GEMM, device], clock.left())[0].split()[-1])
    results.add(dict(part="step", what="torch's product of matrices", flops=rate))
    names = args.models.split(",")
    for name in names:
        model = args.work / name.replace("/", "-")
        if not (model / "model.safetensors").exists() and not (model / "model.safetensors.index.json").exists():
            run([args.python, "-c", MAKE_MODEL, ROOT / "models" / name, model, device], clock.left())
        config = json.loads((model / "config.json").read_text())
        make_tokenizer(model, known_words(model))
        make_rows(model, args.tokens, 4)
        # As trl counts: each prompt with each of its responses. What a step needs has each prompt once.
        tokens, needed = 4 * args.tokens, 4 * args.tokens - 2 * (args.tokens // 4)
        weights = sum(file.stat().st_size for file in model.glob("*.safetensors")) / 2
        table = config["vocab_size"] * config["hidden_size"]
        used = weights if config.get("tie_word_embeddings") else weights - table
        contenders = [("setpoint dro", setpoint), ("trl dpo", trl)]
        for i, (contender, of) in enumerate(contenders):
            # An equal share of what is left.
            seconds, peak, reference, failed = of(args, model, clock.left() / (len(contenders) - i))
            line = dict(part="step", model=name, contender=contender, parameters=weights, steps=len(seconds), seconds=seconds, peak_gb=peak / 1e9)
            if len(seconds) > 1:
                step = sum(seconds[1:]) / (len(seconds) - 1)
                line.update(step_seconds=step, tokens_per_second=tokens / step, share_of_peak=6 * used * needed / step / rate)
            if reference:
                line["reference_tokens_per_second"] = reference
            if failed:
                line["failed"] = str(failed)
            results.add(line)
