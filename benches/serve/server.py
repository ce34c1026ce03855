"""A server that `setpoint serve` starts, for the scripts next to this file."""

import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEMO = ROOT / "examples" / "demo"


def make_model(setpoint, folder):
    """Trains the demo's model from random weights for some steps; returns its folder."""
    model = folder / "run" / "model"
    if not (model / "config.json").is_file():
        settings = {
            "model.from_scratch": DEMO / "config.json",
            "model.tokenizer": DEMO / "tokenizer",
            "data.path": DEMO / "pretrain" / "sft.jsonl",
            "train.max_steps": 30,
            "train.batch_size": 8,
            "train.learning_rate": 0.003,
        }
        pairs = [text for key, value in settings.items() for text in ("--set", f"{key}={value}")]
        subprocess.run([setpoint, "sft", "--quiet", "--run", folder / "run", *pairs], check=True)
    return model


class Server:
    """Ends with the block."""

    def __init__(self, setpoint, model, *arguments):
        command = [setpoint, "serve", "--model", model, "--port", "0", *arguments]
        self.process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        found = re.search(r"http://(\S+):(\d+),", line)
        if not found:
            raise SystemExit(f"the server did not start: {line}")
        self.host, self.port = found[1], int(found[2])
        self.url = f"http://{self.host}:{self.port}/v1"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.code = self.process.wait(timeout=600)
