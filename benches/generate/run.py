"""`setpoint generate` beside transformers' generate: the same checkpoint, the same 64 prompts of unequal length, greedy, f32, processes in turn.

usage: python benches/generate/run.py --python VENV/bin/python [--setpoint target/release/setpoint] [--shapes small,mid] [--rounds 3]
                                      [--answers equal,unequal] [--batch 64] [--hf-batches 16,64] [--new-tokens 64] [--work DIR]
                                      [--ways nf4,adapter,merged,nf4-adapter]

VENV has what benches/peer/requirements.txt pins. The weights are random. Answers of equal length all run to the limit. For unequal ones
every 32nd token of the vocabulary ends an answer, with a repetition penalty, without which such a model repeats itself. Setpoint's time
is that of reading the prompts and sampling as it prints it, transformers' that of its calls of `generate` after a short one to warm up;
neither includes loading. transformers has an allocator that keeps its pages, is given each of --hf-batches and compared by the fastest.
Each round runs every contender once; the table has medians over the rounds. The tokens must be the same: where a row differs, that is
printed. Nothing else should run on the machine.

With --ways, Setpoint also generates with the same weights in 4-bit codes (nf4), with a random adapter of rank 16 of all linear maps that is
applied as it is (adapter) or was merged into the weights before (merged), and with the adapter over codes (nf4-adapter). A second table
compares their times with those of the plain model in the same rounds, and says in how many rows the adapter and the merged model differ.
"""

import argparse
import json
import pathlib
import random
import re
import statistics
import sys

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "peer"))
from run import KEEP, MAKE_MODEL, SHAPES, run  # noqa: E402


def make_tokenizer(folder, size):
    """A word is a token, and every token a word."""
    words = ["<unk>", "<s>", "</s>"] + [f"w{i}" for i in range(3, size)]
    special = [dict(id=i, content=words[i], single_word=False, lstrip=False, rstrip=False, normalized=False, special=True) for i in range(3)]
    tokenizer = dict(version="1.0", truncation=None, padding=None, added_tokens=special, normalizer=None,
                     pre_tokenizer=dict(type="WhitespaceSplit"), post_processor=None, decoder=None,
                     model=dict(type="WordLevel", vocab={word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(json.dumps(dict(
        tokenizer_class="PreTrainedTokenizerFast", bos_token="<s>", eos_token="</s>", unk_token="<unk>")))


def make_folder(args, shape, answers):
    """A checkpoint whose generation_config.json says which tokens end an answer; both kinds of answers share the weights."""
    folder, weights = args.work / f"{shape}-{answers}", args.work / f"{shape}-equal"
    size = SHAPES[shape]["vocab_size"]
    if not (weights / "config.json").exists():
        run([args.python, "-c", MAKE_MODEL, weights, json.dumps(SHAPES[shape])])
    folder.mkdir(exist_ok=True)
    if folder != weights:
        for name in ["config.json", "model.safetensors"]:
            (folder / name).unlink(missing_ok=True)
            (folder / name).symlink_to((weights / name).resolve())
    settings = dict(eos_token_id=[2], do_sample=False)
    if answers == "unequal":
        settings.update(eos_token_id=[2, *range(31, size, 32)], repetition_penalty=1.5)
    (folder / "generation_config.json").write_text(json.dumps(settings))
    make_tokenizer(folder, size)
    return folder


MAKE_ADAPTER = """
import sys, torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
torch.manual_seed(1)
config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
get_peft_model(AutoModelForCausalLM.from_pretrained(sys.argv[1]), config).save_pretrained(sys.argv[2])
"""


def make_ways(args, model):
    """The folder and the further settings of each way that Setpoint generates in."""
    adapter, merged = model.parent / f"{model.name}-adapter", model.parent / f"{model.name}-merged"
    ways = [way for way in args.ways.split(",") if way]
    if any("adapter" in way or way == "merged" for way in ways) and not (adapter / "adapter_config.json").exists():
        run([args.python, "-c", MAKE_ADAPTER, model.resolve(), adapter])
    if "merged" in ways and not (merged / "config.json").exists():
        run([args.setpoint, "merge", "--model", adapter, "--output", merged])
    codes = ["model.quantize=nf4"]
    known = {"nf4": (model, codes), "adapter": (adapter, []), "merged": (merged, []), "nf4-adapter": (adapter, codes)}
    for way in ways:
        if way not in known:
            raise SystemExit(f"--ways knows {', '.join(known)}, but not {way}")
    return {way: known[way] for way in ways}


def make_prompts(path, count):
    """Lengths as in UltraFeedback: log-normal, 8 to 256 tokens."""
    rng = random.Random(0)
    rows = [" ".join(f"w{rng.randrange(3, 30000)}" for _ in range(int(min(max(rng.lognormvariate(4.7, 0.9), 8), 256)))) for _ in range(count)]
    path.write_text("".join(json.dumps(dict(prompt=row)) + "\n" for row in rows))
    return sum(len(row.split()) for row in rows)


def hf(args, model, prompts, batch):
    output, _, _ = run([args.python, HERE / "hf.py", model, prompts, args.new_tokens, batch], KEEP)
    found = json.loads(output.strip().splitlines()[-1])
    stops = set(found["stops"])
    # As text: without special tokens, and without the token that ends an answer.
    texts = [" ".join(f"w{id}" for id in row if id > 2 and id not in stops) for row in found["answers"]]
    return found["seconds"], found["peak_bytes"], texts, sum(map(len, found["answers"]))


def setpoint(args, model, prompts, folder=None, more=()):
    answers = args.work / "answers.jsonl"
    # It is not replaced unasked.
    answers.unlink(missing_ok=True)
    settings = ["data.text_prompts=plain", "generate.temperature=0", f"generate.max_new_tokens={args.new_tokens}",
                f"generate.batch_size={args.batch}", *more]
    output, peak, _ = run([args.setpoint, "generate", "--model", folder or model, "--data", prompts, "--output", answers]
                          + [part for setting in settings for part in ("--set", setting)])
    seconds = float(re.search(r"tokens in ([0-9.]+) seconds", output).group(1))
    stops = {f"w{id}" for id in json.loads((model / "generation_config.json").read_text())["eos_token_id"]}
    texts = [json.loads(line)["responses"][0] for line in answers.read_text().splitlines()]
    return seconds, peak, [" ".join(word for word in text.split() if word not in stops) for text in texts]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True)
    parser.add_argument("--setpoint", default="target/release/setpoint")
    parser.add_argument("--shapes", default="small,mid")
    parser.add_argument("--answers", default="equal,unequal")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--hf-batches", default="16,64")
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--ways", default="")
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("target/bench-generate"))
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    prompts = args.work / "prompts.jsonl"
    tokens = make_prompts(prompts, args.rows)
    print(f"{args.rows} prompts of {tokens} tokens in all, at most {args.new_tokens} new ones each, {args.rounds} rounds")
    for shape in args.shapes.split(","):
        for answers in args.answers.split(","):
            model = make_folder(args, shape, answers)
            ways = make_ways(args, model)
            times, peaks, differences = {}, {}, 0
            own_times, own_peaks, apart = {}, {}, set()
            for _ in range(args.rounds):
                texts, own_texts = {}, {}
                for way, (folder, more) in ways.items():
                    seconds, peak, own_texts[way] = setpoint(args, model, prompts, folder, more)
                    own_times.setdefault(way, []).append(seconds)
                    own_peaks.setdefault(way, []).append(peak)
                if {"adapter", "merged"} <= own_texts.keys():
                    apart.add(sum(a != b for a, b in zip(own_texts["adapter"], own_texts["merged"], strict=True)))
                for name, contender in [("setpoint", lambda: setpoint(args, model, prompts))] + [
                    (f"transformers, batches of {batch}", lambda batch=batch: hf(args, model, prompts, batch))
                    for batch in args.hf_batches.split(",")
                ]:
                    seconds, peak, texts[name], *rest = contender()
                    times.setdefault(name, []).append(seconds)
                    peaks.setdefault(name, []).append(peak)
                    count = rest[0] if rest else None
                reference = texts.popitem()[1]
                for name, found in texts.items():
                    for row, (a, b) in enumerate(zip(found, reference, strict=True)):
                        if a != b:
                            differences += 1
                            at = next((i for i, (x, y) in enumerate(zip(a.split(), b.split())) if x != y), "the end")
                            print(f"{name}: row {row} differs from token {at}")
            rivals = {name: statistics.median(values) for name, values in times.items() if name != "setpoint"}
            rival = min(rivals, key=rivals.get)
            print(f"\n## {shape}, answers of {answers} length, {count} new tokens, rows that differ: {differences}\n")
            print("| contender | seconds | new tokens a second | ÷ transformers' fastest | peak GB | all rounds |\n|---|---|---|---|---|---|")
            for name, values in times.items():
                median = statistics.median(values)
                print(f"| {name} | {median:.2f} | {count / median:.0f} | {median / rivals[rival]:.2f} "
                      f"| {statistics.median(peaks[name]) / 1e9:.2f} | {' '.join(f'{x:.2f}' for x in values)} |", flush=True)
            if ways:
                print_ways(times["setpoint"], own_times, own_peaks, apart)


def print_ways(plain, times, peaks, apart):
    plain = statistics.median(plain)
    print("\n| Setpoint with | seconds | ÷ plain | peak GB | all rounds |\n|---|---|---|---|---|")
    for way, values in times.items():
        median = statistics.median(values)
        print(f"| {way} | {median:.2f} | {median / plain:.2f} | {statistics.median(peaks[way]) / 1e9:.2f} "
              f"| {' '.join(f'{x:.2f}' for x in values)} |")
    if {"adapter", "merged"} <= times.keys():
        ratio = statistics.median(times["adapter"]) / statistics.median(times["merged"])
        print(f"\nadapter ÷ merged: {ratio:.2f}; rows in which they differ: {' '.join(map(str, sorted(apart)))}", flush=True)


if __name__ == "__main__":
    main()
