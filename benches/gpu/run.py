"""Three runs for a short time on a GPU. Each takes four minutes at most and leaves a file of results, also if it is cut off.

usage: python benches/gpu/run.py --part parity|products|step --python VENV/bin/python [--setpoint target/release/setpoint]
           [--products target/release/examples/products] [--device cuda] [--seconds 230] [--out FILE] [--work DIR]
           [--models Llama-3-8B] [--tokens 2048] [--steps 4] [--dtypes f32,bf16] [--shape small]

parity     needs the program alone: a device beside the CPU (parity.py)
products   also needs torch and the example `products`: matrix products at a model's shapes (products.py)
step       also needs trl and, on a GPU, liger-kernel: a step of full fine-tuning (step.py)

VENV has what benches/peer/requirements.txt pins, with torch for the GPU. Setpoint and the example are built with `--features cuda`. Results go
to --out, by default PART.jsonl in the folder of --work; a line is on the disk before the next measurement begins. A contender that ends with
an error or in the middle has that as its line.

These show on a CPU that the parts work, and nothing else:
    --part parity --device wgpu --dtypes f32 --shape tiny --tokens 32
    --part products --device flex --models tiny/llama --tokens 64
    --part step --device flex --models tiny/llama --tokens 64
"""

import argparse
import pathlib
import sys

import parity
import products
import step
from common import ROOT, Clock, Failed, Results

PARTS = {"parity": parity, "products": products, "step": step}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", required=True, choices=PARTS)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--setpoint", type=pathlib.Path, default=ROOT / "target/release/setpoint")
    parser.add_argument("--products", type=pathlib.Path, default=ROOT / "target/release/examples/products")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=230)
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("runs/gpu"))
    parser.add_argument("--models", default="Llama-3-8B")
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--dtypes", default="f32,bf16")
    parser.add_argument("--shape", default="small", choices=["small", "tiny"])
    args = parser.parse_args()
    args.work = args.work.resolve()
    results = Results(args.out or args.work / f"{args.part}.jsonl")
    try:
        PARTS[args.part].measure(args, results, Clock(args.seconds))
    except Failed as error:
        results.add(dict(part=args.part, failed=str(error)))
    if any("failed" in line or line.get("ok") is False for line in results.lines):
        sys.exit(f"not all is well: {results.path}")


if __name__ == "__main__":
    main()
