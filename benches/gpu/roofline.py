"""The roofline of a training step: operations and bytes of each part, and the shortest time that both allow.

usage: python benches/gpu/roofline.py [--model Llama-3-8B] [--tokens 2048] [--texts 1] [--recompute block|none]
                                      [--bandwidth 3.35,4.8] [--flops 800] [--adapter-rank 0]

The shape is that of a folder of models/. A step is one packed batch of --texts texts with --tokens tokens in all: bf16 weights and activations,
gradients summed in f32, AdamW with f32 moments and f32 master weights. Bytes count each tensor once for each time that a kernel has to read
or write it, with one kernel for each part (a composition takes several times as many): nothing is assumed to stay in a cache. Operations are
those of matrix products, two for each multiplication; causal attention has half of the square. A part takes at least the longer of operations /
--flops (TFLOP/s) and bytes / --bandwidth (TB/s); parts follow each other. With --adapter-rank the matrices are frozen and only LoRA factors on
all of them are trained.

Nothing here has been measured. It is the line that measurements are compared with.
"""

import argparse
import json
import pathlib

MODELS = pathlib.Path(__file__).resolve().parent.parent.parent / "models"
BF16, F32 = 2, 4
# Bytes of logits that exist at a time, and those that are kept for the backward pass (`crates/setpoint-train/src/logps/head.rs`).
CHUNK, KEPT = 128 << 20, 512 << 20


class Shape:
    def __init__(self, config):
        self.layers, self.d, self.f = config["num_hidden_layers"], config["hidden_size"], config["intermediate_size"]
        self.h, self.vocabulary = config["num_attention_heads"], config["vocab_size"]
        self.g = config.get("num_key_value_heads", self.h)
        self.n = config.get("head_dim") or self.d // self.h
        self.tied = config.get("tie_word_embeddings", False)
        q, kv = self.h * self.n, self.g * self.n
        # [out, in] of the linear maps of a layer.
        self.maps = [(q, self.d), (kv, self.d), (kv, self.d), (self.d, q), (self.f, self.d), (self.f, self.d), (self.d, self.f)]

    def parameters(self):
        layer = sum(rows * columns for rows, columns in self.maps) + 2 * self.d
        tables = self.vocabulary * self.d * (1 if self.tied else 2)
        return self.layers * layer + self.d + tables


class Parts:
    """Parts of a step with their operations and bytes."""

    def __init__(self):
        self.rows = []

    def add(self, name, operations, read_and_written, times=1):
        self.rows.append((name, operations * times, read_and_written * times))


def maps(parts, shape, tokens, forwards, rank):
    products = sum(2 * tokens * rows * columns for rows, columns in shape.maps)
    weights = sum(rows * columns for rows, columns in shape.maps) * BF16
    activations = sum(tokens * (rows + columns) for rows, columns in shape.maps) * BF16
    parts.add("linear maps, forward", products, weights + activations, forwards * shape.layers)
    parts.add("linear maps, gradient of the input", products, weights + activations, shape.layers)
    if rank == 0:
        parts.add("linear maps, gradient of the weight", products, weights + activations, shape.layers)
    else:
        factors = sum(2 * tokens * rank * (rows + columns) for rows, columns in shape.maps)
        inner = sum(tokens * (rows + columns + 2 * rank) for rows, columns in shape.maps) * F32
        parts.add("adapter, forward and both gradients", factors, inner, (forwards + 2) * shape.layers)


def attention(parts, shape, tokens, texts, forwards):
    length = tokens / texts
    # Two products of [length, n] and [n, length] each, half of which the mask leaves.
    products = 2 * texts * length * length * shape.h * shape.n
    q, kv = tokens * shape.h * shape.n * BF16, tokens * shape.g * shape.n * BF16
    log_sums = tokens * shape.h * F32
    parts.add("attention, forward", products, 2 * q + 2 * kv + log_sums, forwards * shape.layers)
    # Five products instead of two.
    parts.add("attention, backward", 2.5 * products, 4 * q + 4 * kv + log_sums, shape.layers)


def rows(parts, shape, tokens, forwards):
    hidden, inner = tokens * shape.d * BF16, tokens * shape.f * BF16
    rotated = tokens * (shape.h + shape.g) * shape.n * BF16
    parts.add("norms", 0, 2 * (2 * hidden * forwards + 3 * hidden), shape.layers)
    parts.add("rotary embedding", 0, 2 * rotated * (forwards + 1), shape.layers)
    parts.add("SwiGLU", 0, 3 * inner * forwards + 5 * inner, shape.layers)
    parts.add("residual sums", 0, 2 * 3 * hidden * (forwards + 1), shape.layers)


def head(parts, shape, tokens, recompute, rank):
    table = shape.vocabulary * shape.d
    logits, hidden = tokens * shape.vocabulary * F32, tokens * shape.d * BF16
    chunks, products = -(-logits // CHUNK), 2 * tokens * table
    # Forward and, unless they are few and kept, once more in the backward pass.
    passes = 1 if recompute == "none" and logits <= KEPT else 2
    in_logits = tokens * shape.vocabulary * BF16
    parts.add("head, logits", products, chunks * table * BF16 + hidden + logits, passes)
    parts.add("head, log-probabilities and gradient of the logits", 0, 2 * logits + in_logits)
    parts.add("head, gradient of the input", products, chunks * table * BF16 + in_logits + hidden)
    if rank == 0:
        # The f32 sum is read and written for each chunk.
        parts.add("head, gradient of the weight", products, chunks * 2 * table * F32 + in_logits + hidden)


def optimizer(parts, trained, shape, tokens, rank):
    if rank == 0:
        table = shape.vocabulary * shape.d * F32
        parts.add("embeddings and their gradient", 0, 2 * tokens * shape.d * (BF16 + F32) + table)
        parts.add("gradients from bf16 to f32", 0, trained * (BF16 + F32))
    parts.add("norm of the gradient", 0, trained * F32)
    gradient, moments = F32, 2 * F32
    # The f32 master copy is read and written, and the bf16 weight written. The factors of an adapter are f32 themselves.
    weight = 2 * F32 if rank else 2 * F32 + BF16
    parts.add("AdamW", 0, trained * (gradient + 2 * moments + weight))


def parts_of(shape, tokens, texts, recompute, rank):
    parts, forwards = Parts(), 2 if recompute == "block" else 1
    maps(parts, shape, tokens, forwards, rank)
    attention(parts, shape, tokens, texts, forwards)
    rows(parts, shape, tokens, forwards)
    head(parts, shape, tokens, recompute, rank)
    trained = shape.parameters()
    if rank:
        trained = shape.layers * sum(rank * (outputs + inputs) for outputs, inputs in shape.maps)
    optimizer(parts, trained, shape, tokens, rank)
    return parts.rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="Llama-3-8B", help="a folder of models/")
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--texts", type=int, default=1)
    parser.add_argument("--recompute", choices=["block", "none"], default="block")
    parser.add_argument("--bandwidth", default="3.35,4.8", help="TB/s, separated by commas")
    parser.add_argument("--flops", type=float, default=800, help="TFLOP/s")
    parser.add_argument("--adapter-rank", type=int, default=0)
    args = parser.parse_args()
    if min(args.tokens, args.texts) < 1 or args.tokens % args.texts:
        parser.error(f"--tokens {args.tokens} must be a multiple of --texts {args.texts}")
    file = MODELS / args.model / "config.json"
    if not file.exists():
        parser.error(f"--model {args.model}: {file} does not exist")
    shape = Shape(json.loads(file.read_text()))
    bandwidths = [float(text) for text in args.bandwidth.split(",")]
    found = parts_of(shape, args.tokens, args.texts, args.recompute, args.adapter_rank)
    found.append(("**all**", *(sum(part[i] for part in found) for i in (1, 2))))
    titles = "".join(f" ms at {bandwidth:g} TB/s |" for bandwidth in bandwidths)
    print(f"| part | TFLOP | GB |{titles}\n|---|---|---|{'---|' * len(bandwidths)}")
    totals = [0.0] * len(bandwidths)
    for name, operations, moved in found:
        times = [max(operations / args.flops, moved / bandwidth) / 1e9 for bandwidth in bandwidths]
        if name == "**all**":
            times = totals
        totals = [total + time for total, time in zip(totals, times)]
        print(f"| {name} | {operations / 1e12:.2f} | {moved / 1e9:.1f} |" + "".join(f" {time:.1f} |" for time in times))


if __name__ == "__main__":
    main()
