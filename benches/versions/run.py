"""Two binaries of Setpoint beside each other: the same checkpoint and rows, processes in turn.

usage: python benches/versions/run.py --python VENV/bin/python --old BINARY [--new target/release/setpoint] [--rounds 7] [--rows 12]
                                      [--shape small] [--work DIR]

Measures DPO and DRO steps as benches/peer does, and greedy generation as benches/generate does. Each round runs both binaries, and the
one that begins alternates. The table has the median of the rounds' own ratios, new ÷ old, with the smallest and the largest, and says
whether the answers of the two are the same. VENV has what benches/peer/requirements.txt pins; it only makes the checkpoint. Nothing else
should run on the machine.
"""

import argparse
import copy
import importlib.util
import json
import pathlib
import statistics

BENCHES = pathlib.Path(__file__).parent.parent


def load(name):
    """benches/NAME/run.py as a module."""
    spec = importlib.util.spec_from_file_location(f"bench_{name}", BENCHES / name / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True)
    parser.add_argument("--old", type=pathlib.Path, required=True)
    parser.add_argument("--new", type=pathlib.Path, default=pathlib.Path("target/release/setpoint"))
    parser.add_argument("--shape", default="small")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rows", type=int, default=12)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("runs/versions"))
    args = parser.parse_args()
    # What the functions of the two benchmarks read.
    args.rank, args.batch = 0, args.prompts
    peer, generate = load("peer"), load("generate")
    # Fewer than for a comparison with trl: the loop is a small part of the step, and here the same code on both sides.
    peer.REFERENCE_ROWS = 2
    args.work.mkdir(parents=True, exist_ok=True)

    peer.make_rows(args.work, peer.draw_lengths(args.rows))
    trained = args.work / args.shape
    if not (trained / "config.json").exists():
        peer.run([args.python, "-c", peer.MAKE_MODEL, trained, json.dumps(peer.SHAPES[args.shape])])
        peer.make_tokenizer(trained)
    prompts = args.work / "prompts.jsonl"
    generate.make_prompts(prompts, args.prompts)
    sampled = generate.make_folder(args, args.shape, "equal")

    contenders = {}
    for name in ["old", "new"]:
        contenders[name] = copy.copy(args)
        contenders[name].setpoint = getattr(args, name)

    found = {}
    record = lambda what, name, value: found.setdefault(what, {}).setdefault(name, []).append(value)
    answers = {}
    for round in range(args.rounds):
        for name in ["old", "new"] if round % 2 == 0 else ["new", "old"]:
            for method in ["dpo", "dro"]:
                step, looped, peak = peer.setpoint(contenders[name], trained, method)
                record(f"{method}: seconds a step", name, step)
                record(f"{method}: seconds a step, reference in the loop", name, looped)
                record(f"{method}: peak GB", name, peak / 1e9)
            seconds, peak, answers[name], *_ = generate.setpoint(contenders[name], sampled, prompts)
            record("generate: seconds", name, seconds)
            record("generate: peak GB", name, peak / 1e9)
        print(f"round {round + 1} of {args.rounds}", flush=True)

    same = sum(a == b for a, b in zip(answers["old"], answers["new"], strict=True))
    print(f"\n{args.shape}, {args.rows} rows, {args.rounds} rounds; answers that are the same: {same} of {args.prompts}\n")
    print("| measurement | old | new | new ÷ old | smallest and largest |\n|---|---|---|---|---|")
    for what, values in found.items():
        ratios = [new / old for old, new in zip(values["old"], values["new"], strict=True)]
        print(f"| {what} | {statistics.median(values['old']):.3f} | {statistics.median(values['new']):.3f} "
              f"| {statistics.median(ratios):.3f} | {min(ratios):.3f}–{max(ratios):.3f} |")


if __name__ == "__main__":
    main()
