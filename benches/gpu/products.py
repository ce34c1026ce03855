"""The products of a model's linear maps, bf16 on a GPU and f32 on a CPU: Setpoint's beside torch's, at --tokens rows.

The example `products` times Setpoint's, and those of few rows with 4-bit codes, which torch has none of. torch computes the same three
products of each map, as often as a tenth of a second allows.
"""

import json

from common import ROOT, Failed, on_cuda, run

TORCH = """
import json, sys, time, torch
device, dtype = ("cuda", torch.bfloat16) if sys.argv[1] == "cuda" else ("cpu", torch.float32)
wait = torch.cuda.synchronize if device == "cuda" else lambda: None
for rows, outputs, inputs in json.loads(sys.argv[2]):
    x, w, g = (torch.rand(shape, device=device, dtype=dtype) for shape in [(rows, inputs), (outputs, inputs), (rows, outputs)])
    for name, product in [("forward", lambda: x @ w.T), ("input", lambda: g @ w), ("weight", lambda: g.T @ x)]:
        def run(count):
            wait()
            start = time.perf_counter()
            for _ in range(count):
                product()
            wait()
            return time.perf_counter() - start
        run(1)
        count, taken = 1, run(1)
        while taken < 0.1 and count < 4096:
            count *= 2
            taken = run(count)
        print(json.dumps(dict(product=name, rows=rows, out=outputs, **{"in": inputs}, seconds=taken / count)), flush=True)
"""


def lines_of(command, seconds):
    """The lines of JSON that a command prints, and why it failed, if it did."""
    try:
        output, failed = run(command, seconds)[0], None
    except Failed as error:
        output, failed = error.output, error
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")], failed


def measure(args, results, clock):
    for name in args.models.split(","):
        # Tuning takes long, so most of the time is Setpoint's; it begins nothing new near its end.
        seconds = clock.left() * 0.7
        dtype = "bf16" if on_cuda(args) else "f32"
        own, failed = lines_of([args.products, ROOT / "models" / name, args.tokens, dtype, int(seconds * 0.8)], seconds)
        for line in own:
            results.add(dict(part="products", model=name, contender="setpoint", **line))
        if failed:
            results.add(dict(part="products", model=name, contender="setpoint", failed=str(failed)))
        key = lambda line: (line["product"], line["rows"], line["out"], line["in"])
        shapes = sorted({key(line)[1:] for line in own if line["product"] != "nf4"})
        device = "cuda" if on_cuda(args) else "cpu"
        torch, failed = lines_of([args.python, "-c", TORCH, device, json.dumps(shapes)], clock.left())
        times = {key(line): line["seconds"] for line in own}
        for line in torch:
            ratio = line["seconds"] / times[key(line)] if key(line) in times else None
            results.add(dict(part="products", model=name, contender="torch", **line, setpoint_is_faster_by=ratio))
        if failed:
            results.add(dict(part="products", model=name, contender="torch", failed=str(failed)))
