"""Rounds of Setpoint beside trl's: the same checkpoint, prompts and numbers of tokens, f32, one machine, processes in turn.

usage: python benches/online/run.py --python VENV/bin/python [--setpoint target/release/setpoint] [--shape small] [--methods grpo,ppo]
                                    [--trl-ppo DIR] [--repeats 3] [--minutes M] [--rounds 3] [--responses 64] [--tokens 64] [--work DIR]

VENV has what benches/peer/requirements.txt pins. DIR is an unpacked trl 1.12.0, the last version with PPO:

    pip download trl==1.12.0 --no-deps && unzip -d trl-1.12 trl-1.12.0-*.whl

Each repetition runs every contender once, and medians over the repetitions are compared. With --minutes no repetition after the first
begins that would not end in time; what is measured is also in DIR/results.jsonl, as it comes. A contender makes one round more than --rounds, of
which the first is left out: it warms up. GRPO: 8 responses to a prompt, one optimizer step a round, rewards by a rule. PPO: one response to a
prompt, four passes, a reward model and a value network of the policy's shape. The random model never ends a response by itself, so that all
have the same number of tokens.

The last table has the speed of generation in Setpoint's rounds next to `setpoint generate` on the same prompts, in as many waves as there are
rounds, and the part of a round in which responses are scored. Both sides must read the same number of tokens, or the script ends. Nothing
else should run on the machine.
"""

import argparse
import json
import os
import pathlib
import random
import re
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).parent
# Responses that rounds sample at the same time, at most.
MOST_AT_ONCE = 64
sys.path.insert(0, str(HERE.parent / "peer"))
from run import SHAPES as PEER_SHAPES, make_tokenizer  # noqa: E402

SHAPES = {
    # For a look at whether everything runs: seconds.
    "tiny": dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=64,
                 vocab_size=32000, tie_word_embeddings=True),
    **PEER_SHAPES,
}
SAMPLES = dict(grpo=8, ppo=1)

MAKE_MODELS = """
import json, sys, torch
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification
config = LlamaConfig(max_position_embeddings=2048, bos_token_id=1, eos_token_id=2, pad_token_id=0, **json.loads(sys.argv[2]))
torch.manual_seed(0)
LlamaForCausalLM(config).save_pretrained(sys.argv[1])
torch.manual_seed(1)
config.num_labels = 1
LlamaForSequenceClassification(config).save_pretrained(sys.argv[1] + "-reward")
"""


def make_prompts(path, count):
    """Prompts of 8 to 64 words, each of which is a token."""
    rng = random.Random(0)
    words = lambda n: " ".join(f"w{rng.randrange(30000)}" for _ in range(n))
    path.write_text("".join(json.dumps({"prompt": words(rng.randint(8, 64))}) + "\n" for _ in range(count)))


def run(command):
    """Runs a command; returns its output, and the peak of its resident memory in bytes."""
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{output[-3000:]}")
    return output, usage.ru_maxrss * 1024


def settings(pairs):
    return [part for pair in pairs for part in ("--set", pair)]


def trl(args, model, prompts, method):
    command = [args.python, HERE / "trl_online.py", method, model, prompts, args.rounds, args.responses, SAMPLES[method], args.tokens]
    output, peak = run(command + ([args.trl_ppo] if method == "ppo" else []))
    found = json.loads(output.strip().splitlines()[-1])
    return dict(seconds=statistics.mean(found["seconds"]), peak=peak, tokens=found["tokens"])


def planned_tokens(args, command, own):
    """Tokens of a round's prompts as Setpoint reads them."""
    output, _ = run([args.setpoint, "plan", "--job", "align", "--json"] + command + settings(own))
    return json.loads(output[output.index("{"):])["tokens"] - args.responses * args.tokens


def setpoint(args, model, prompts, method):
    """Seconds of a round, its parts, tokens a second of its generation, and the peak memory."""
    folder = args.work / f"run-{method}"
    subprocess.run(["rm", "-rf", folder], check=True)
    own = [f"align.method={method}", f"rollout.prompts={args.responses // SAMPLES[method]}", f"rollout.samples={SAMPLES[method]}",
           f"rollout.max_new_tokens={args.tokens}", f"train.batch_size={args.responses}",
           "train.learning_rate=1e-6", "samples.prompts=0", "data.text_prompts=plain", "rollout.temperature=1.0"]
    # trl trains GRPO without a reference, and loads none.
    own += ["rollout.log_kl=false"] if method == "grpo" else []
    rule = ["reward.rule.kind=length", "reward.rule.unit=chars", "reward.rule.max=0", "reward.rule.penalty=0.01"]
    own += [f"reward.model.path={model}-reward"] if method == "ppo" else rule
    command = ["--model", model, "--data", prompts, "--rounds", args.rounds + 1]
    tokens = planned_tokens(args, command, own)
    _, peak = run([args.setpoint, "align", "--quiet", "--run", folder] + command + settings(own))
    rounds, steps, current = [], [], None
    for line in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines()):
        if "round" in line:
            current = line
            rounds.append(line)
            steps.append(0.0)
        elif current is not None and "step_seconds" in line:
            steps[-1] += line["step_seconds"]
    parts = [(line["rollout/seconds"], line["rollout/scoring_seconds"], seconds) for line, seconds in zip(rounds, steps)][1:]
    generating, scoring, training = (statistics.mean(values) for values in zip(*parts))
    speed = statistics.mean(line["rollout/tokens_per_second"] for line in rounds[1:])
    return dict(seconds=generating + scoring + training, generating=generating, scoring=scoring, training=training, speed=speed, peak=peak,
                tokens=dict(prompts=tokens, response=statistics.mean(line["completions/mean_length"] for line in rounds)))


def generate(args, model, prompts, samples):
    """Tokens a second of `setpoint generate` on the prompts of all measured rounds, one wave after the other."""
    waves = args.work / "prompts-generate.jsonl"
    waves.write_text(prompts.read_text() * args.rounds)
    own = [f"generate.samples={samples}", f"generate.max_new_tokens={args.tokens}", "generate.temperature=1.0", "data.text_prompts=plain",
           f"generate.batch_size={min(args.responses, MOST_AT_ONCE)}"]
    output, _ = run([args.setpoint, "generate", "--overwrite", "--model", model, "--data", waves, "--output", args.work / "generated.jsonl"]
                    + settings(own))
    tokens, seconds = re.search(r"([0-9,]+) tokens? in ([0-9.]+) seconds", output).groups()
    return int(tokens.replace(",", "")) / float(seconds)


def check_tokens(method, found):
    """Ends the script unless all sides read and sampled as many tokens. A response may end by itself once in thousands of tokens."""
    prompts = {name: values["tokens"]["prompts"] for name, values in found.items()}
    if len(set(prompts.values())) > 1:
        raise SystemExit(f"{method}: the sides read prompts of different numbers of tokens: {prompts}")
    responses = [values["tokens"]["response"] for values in found.values() if values["tokens"]["response"]]
    if responses and max(responses) > 1.02 * min(responses):
        raise SystemExit(f"{method}: the sides sampled responses of different lengths: {responses}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True)
    parser.add_argument("--setpoint", type=pathlib.Path, default=pathlib.Path("target/release/setpoint"))
    parser.add_argument("--shape", default="small", choices=SHAPES)
    parser.add_argument("--methods", default="grpo,ppo")
    parser.add_argument("--trl-ppo", type=pathlib.Path, help="an unpacked trl 1.12.0")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--minutes", type=float, help="begin no further repetition that would not end within this time")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--responses", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--only", choices=["trl", "setpoint"], help="one side alone, to see whether it runs")
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("runs/online"))
    args = parser.parse_args()
    methods = args.methods.split(",")
    if "ppo" in methods and args.only != "setpoint" and not (args.trl_ppo and (args.trl_ppo / "trl").is_dir()):
        parser.error("trl's PPO needs --trl-ppo DIR, an unpacked trl 1.12.0; --methods grpo leaves it out")
    args.work.mkdir(parents=True, exist_ok=True)
    model = args.work / args.shape
    if not (model / "tokenizer.json").exists():
        run([args.python, "-c", MAKE_MODELS, model, json.dumps(SHAPES[args.shape])])
        for folder in [model, args.work / f"{args.shape}-reward"]:
            make_tokenizer(folder)
    seconds, peaks, details, plain = {}, {}, {}, {}
    begun, longest = time.monotonic(), 0.0
    for repetition in range(args.repeats):
        started = time.monotonic()
        if args.minutes and repetition > 0 and started - begun + longest > 60 * args.minutes:
            break
        for method in methods:
            # As many prompts as a round has: every round has the same ones.
            prompts = args.work / f"prompts-{method}.jsonl"
            make_prompts(prompts, args.responses // SAMPLES[method])
            found = {}
            if args.only != "setpoint":
                found["trl"] = trl(args, model, prompts, method)
            if args.only != "trl":
                found["setpoint"] = setpoint(args, model, prompts, method)
                details.setdefault(method, []).append(found["setpoint"])
                plain.setdefault(method, []).append(generate(args, model, prompts, SAMPLES[method]))
            check_tokens(method, found)
            for name, values in found.items():
                seconds.setdefault((method, name), []).append(values["seconds"])
                peaks.setdefault((method, name), []).append(values["peak"])
                print(f"{method} {name}: {values['seconds']:.3f} s a round, {values['peak'] / 1e9:.2f} GB, tokens {values['tokens']}",
                      file=sys.stderr, flush=True)
                line = dict(repetition=repetition, method=method, name=name, **values)
                if name == "setpoint":
                    line["generate"] = plain[method][-1]
                with (args.work / "results.jsonl").open("a") as file:
                    file.write(json.dumps(line) + "\n")
        longest = max(longest, time.monotonic() - started)
    repeats = len(next(iter(seconds.values())))
    median = lambda values: statistics.median(values)
    print(f"{args.shape}: {args.responses} responses of {args.tokens} tokens a round, {args.rounds} rounds, {repeats} repetitions, "
          f"{time.strftime('%-d %B %Y')}\n")
    print("| method | contender | seconds a round | ÷ trl | peak GB | ÷ trl's | all repetitions |\n|---|---|---|---|---|---|---|")
    for (method, name), values in seconds.items():
        rival, least = seconds.get((method, "trl")), peaks.get((method, "trl"))
        ratio = f"{median(values) / median(rival):.2f}" if rival else ""
        memory = f"{median(peaks[method, name]) / median(least):.2f}" if least else ""
        print(f"| {method} | {name} | {median(values):.3f} | {ratio} | {median(peaks[method, name]) / 1e9:.2f} | {memory} "
              f"| {' '.join(f'{value:.2f}' for value in values)} |")
    if details:
        print("\n| method | tokens/s in rounds | `setpoint generate` | ratio | generation | scoring | training |\n|---|---|---|---|---|---|---|")
    for method, found in details.items():
        of = lambda name: median([values[name] for values in found])
        share = lambda name: f"{of(name) / of('seconds'):.0%}"
        print(f"| {method} | {of('speed'):.0f} | {median(plain[method]):.0f} | {of('speed') / median(plain[method]):.2f} "
              f"| {share('generating')} | {share('scoring')} | {share('training')} |")


if __name__ == "__main__":
    main()
