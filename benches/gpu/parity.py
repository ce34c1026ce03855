"""A device beside the CPU, with one program: training steps, log-probabilities, and generation, in f32 and bf16.

A small model begins from the same random weights on both. Steps: supervised fine-tuning, whose losses and gradient norms are compared.
Log-probabilities: of a model that the CPU has trained for longer, also with its matrices in 4-bit codes. Generation: greedy texts of that
model. Texts have at most 256 tokens.
On the CPU, tests compare these numbers with torch's. If steps in f32 differ, they are tried again without one kernel after another.
"""

import json
import random
import shutil

from common import Failed, run
from peer import SHAPES, make_tokenizer

# How far apart numbers may be: relative of losses and norms, nats a token of log-probabilities.
LIMITS = {"f32": dict(loss=1e-4, grad_norm=1e-3, logps=1e-4), "bf16": dict(loss=0.01, grad_norm=0.02, logps=0.03)}
KERNELS = ["adamw", "attention", "cached-attention", "dropout", "embedding", "nf4", "nf4-product", "rms-norm", "rotate", "sum-of-squares", "swiglu",
           "token-scores"]
STEPS = 6
# So many make a model that says words.
LONG = 40


def prepare(args):
    model = args.work / "parity"
    shutil.rmtree(model, ignore_errors=True)
    model.mkdir(parents=True)
    shape = SHAPES["small"] if args.shape == "small" else dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
                                                              num_key_value_heads=2, intermediate_size=96, vocab_size=1003,
                                                              tie_word_embeddings=True)
    config = dict(model_type="llama", max_position_embeddings=2048, rms_norm_eps=1e-5, rope_theta=10000.0, **shape)
    (model / "config.json").write_text(json.dumps(config))
    words = min(shape["vocab_size"] - 3, 30000)
    make_tokenizer(model, words)
    rng, tokens = random.Random(2), min(args.tokens, 256)
    text = lambda count: " ".join(f"w{rng.randrange(words)}" for _ in range(count))
    rows = [dict(messages=[dict(role="user", content=text(rng.randrange(4, tokens // 4))),
                           dict(role="assistant", content=text(rng.randrange(8, tokens // 2)))]) for _ in range(8)]
    (model / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (model / "prompts.jsonl").write_text("".join(json.dumps(dict(prompt=row["messages"][0]["content"])) + "\n" for row in rows))
    return model


def call(args, job, device, settings, clock, disabled="", folder=None):
    command = [args.setpoint, job, "--quiet", "--device", device] + (["--run", folder] if folder else []) + [part for setting in settings for part in ("--set", setting)]
    return run(command, clock.left(), {"SETPOINT_DISABLED_KERNELS": disabled})


def train(args, model, device, dtype, clock, disabled="", steps=STEPS):
    """Losses and gradient norms of some steps, and the folder of the run."""
    folder = args.work / f"parity-{device.replace(':', '-')}-{dtype}-{steps}"
    shutil.rmtree(folder, ignore_errors=True)
    settings = [f"model.from_scratch={model / 'config.json'}", f"model.tokenizer={model}", "model.template=plain", f"model.dtype={dtype}",
                f"data.path={model / 'rows.jsonl'}", f"train.max_steps={steps}", "train.epochs=100", "train.batch_size=4",
                "train.micro_batch.examples=2", "train.recompute=block", "train.learning_rate=3e-3"]
    call(args, "sft", device, settings, clock, disabled, folder)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(line["loss"], line["grad_norm"]) for line in lines if "grad_norm" in line], folder


def logps(args, model, trained, device, dtype, quantize, clock):
    output = args.work / "logps.jsonl"
    output.unlink(missing_ok=True)
    settings = [f"model.path={trained / 'model'}", "model.template=plain", f"model.dtype={dtype}", f"data.path={model / 'rows.jsonl'}",
                f"output={output}"] + (["model.quantize=nf4"] if quantize else [])
    call(args, "logps", device, settings, clock)
    return [(found["response_logp"], found["response_tokens"]) for found in map(json.loads, output.read_text().splitlines())]


def texts(args, model, trained, device, clock):
    output = args.work / "texts.jsonl"
    output.unlink(missing_ok=True)
    settings = [f"model.path={trained / 'model'}", "model.template=plain", f"data.path={model / 'prompts.jsonl'}", "generate.temperature=0",
                "generate.max_new_tokens=24", f"output={output}"]
    call(args, "generate", device, settings, clock)
    return [word for line in output.read_text().splitlines() for text in json.loads(line)["responses"] for word in text.split()]


def apart(found, expected):
    return max(abs(a - b) / max(abs(b), 1e-6) for a, b in zip(found, expected, strict=True))


def compare_steps(results, what, found, expected, limits):
    """Writes how far losses and norms are apart, and says whether that is within the limits."""
    is_good = True
    for i, name in enumerate(["loss", "grad_norm"]):
        distance = apart([step[i] for step in found], [step[i] for step in expected])
        is_good &= distance <= limits[name]
        results.add(dict(part="parity", check=f"{what}, {name}", apart=distance, limit=limits[name], ok=distance <= limits[name]))
    return is_good


def measure(args, results, clock):
    model = prepare(args)
    expected, _ = train(args, model, "flex", "f32", clock)
    results.add(dict(part="parity", check="steps on the CPU", losses=[loss for loss, _ in expected]))

    _, trained = train(args, model, "flex", "f32", clock, steps=LONG)

    def attempt(what, work):
        try:
            work()
        except (Failed, ValueError, KeyError, OSError) as error:
            results.add(dict(part="parity", check=what, ok=False, failed=f"{type(error).__name__}: {error}"))

    def steps(dtype):
        found, _ = train(args, model, args.device, dtype, clock)
        if not compare_steps(results, f"steps in {dtype}", found, expected, LIMITS[dtype]) and dtype == "f32":
            for kernel in KERNELS:
                attempt(f"steps without {kernel}", lambda: compare_steps(
                    results, f"steps without {kernel}", train(args, model, args.device, dtype, clock, kernel)[0], expected, LIMITS[dtype]))

    def scores(dtype, quantize):
        of = [logps(args, model, trained, device, of_dtype, quantize, clock) for device, of_dtype in [(args.device, dtype), ("flex", "f32")]]
        distance = max(abs(found - wanted) / tokens for (found, tokens), (wanted, _) in zip(*of, strict=True))
        limit = LIMITS[dtype]["logps"]
        what = f"log-probabilities in {dtype}" + (", 4-bit codes" if quantize else "")
        results.add(dict(part="parity", check=what, apart=distance, limit=limit, ok=distance <= limit))

    def generation():
        found, wanted = (texts(args, model, trained, device, clock) for device in (args.device, "flex"))
        same = sum(a == b for a, b in zip(found, wanted)) / max(len(wanted), 1)
        # A tie may fall on either side.
        results.add(dict(part="parity", check="greedy texts, words alike", alike=same, limit=0.95, ok=same >= 0.95))

    for dtype in args.dtypes.split(","):
        attempt(f"steps in {dtype}", lambda: steps(dtype))
        for quantize in [False, True]:
            attempt(f"log-probabilities in {dtype}", lambda: scores(dtype, quantize))
    attempt("greedy texts", generation)
