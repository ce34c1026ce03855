"""Hands the metrics of a run to wandb, mlflow or trackio, offline.

`setpoint` writes this file into a run folder and starts it. It reads lines of JSON from its input:

    {"kind": "wandb", "project": …, "name": …, "folder": …, "state": …, "config": {…}}     first
    {"step": 20, "kind": "train", "values": {"train/loss": 0.25, …}}                       then, for each line of metrics
    {"end": "finished"}                                                                    last: or "stopped", "failed"

`state` is a file with the tool's run and the last step that it got. A run that is resumed sends steps again; they are skipped.
An input that ends without a last line is a run that was killed.
"""

import json
import os
import sys
import time
import uuid
from pathlib import Path


class Wandb:
    """Weights & Biases. A process that goes on with a run leaves another folder with the same id, which is uploaded to the same run."""

    def __init__(self, start, run):
        import wandb

        self.id = run or uuid.uuid4().hex[:12]
        self.run = wandb.init(
            project=start["project"],
            name=start["name"],
            id=self.id,
            resume="allow",
            dir=start["folder"],
            mode="offline",
            config=start["config"],
        )

    def log(self, step, values):
        self.run.log(values, step=step)

    def end(self, how):
        self.run.finish(exit_code=1 if how == "failed" else 0)


class Mlflow:
    """MLflow's files, without a server."""

    STATUS = {"finished": "FINISHED", "failed": "FAILED"}

    def __init__(self, start, run):
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        self.client = MlflowClient(tracking_uri=Path(start["folder"]).as_uri())
        if run:
            self.client.update_run(run, status="RUNNING")
            self.id = run
            return
        found = self.client.get_experiment_by_name(start["project"])
        experiment = found.experiment_id if found else self.client.create_experiment(start["project"])
        self.id = self.client.create_run(experiment, run_name=start["name"]).info.run_id
        parameters = [Param(key, str(value)[:5000]) for key, value in start["config"].items()]
        for at in range(0, len(parameters), 100):
            self.client.log_batch(self.id, params=parameters[at : at + 100])

    def log(self, step, values):
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for name, value in values.items()]
        for at in range(0, len(metrics), 1000):
            self.client.log_batch(self.id, metrics=metrics[at : at + 1000])

    def end(self, how):
        self.client.set_terminated(self.id, status=self.STATUS.get(how, "KILLED"))


class Trackio:
    """Trackio's database on this machine. It knows a run by its name."""

    def __init__(self, start, run):
        import trackio

        self.run = trackio.init(
            project=start["project"],
            name=run or start["name"],
            config=start["config"],
            resume="allow" if run else "never",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        self.id = self.run.name

    def log(self, step, values):
        self.run.log(values, step=step)

    def end(self, how):
        self.run.finish()


TOOLS = {"wandb": Wandb, "mlflow": Mlflow, "trackio": Trackio}


class State:
    """The tool's run, the last step that it got, and the kinds of lines that it got of that step."""

    def __init__(self, start):
        self.path = Path(start["state"])
        # Another tool, folder or project has a run of its own.
        self.of = [start["kind"], start["folder"], start["project"]]
        self.run, self.step, self.kinds = None, -1, []
        try:
            known = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return
        if known["of"] == self.of:
            self.run, self.step, self.kinds = known["run"], known["step"], known["kinds"]

    def has(self, line):
        return line["step"] < self.step or (line["step"] == self.step and line["kind"] in self.kinds)

    def add(self, line):
        self.kinds = [*self.kinds, line["kind"]] if line["step"] == self.step else [line["kind"]]
        self.step = line["step"]
        self.write()

    def write(self):
        text = json.dumps({"of": self.of, "run": self.run, "step": self.step, "kinds": self.kinds})
        unfinished = self.path.with_name(".unfinished-" + self.path.name)
        unfinished.write_text(text + "\n", encoding="utf-8")
        os.replace(unfinished, self.path)


def stay_offline(folder):
    """Sets what keeps the tools on this machine, and removes the keys that they would find."""
    for name in list(os.environ):
        if name.startswith(("WANDB_", "MLFLOW_", "TRACKIO_")) or name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            del os.environ[name]
    os.environ.update(
        WANDB_MODE="offline",
        WANDB_SILENT="true",
        WANDB_CONSOLE="off",
        WANDB_DISABLE_GIT="true",
        WANDB_DISABLE_CODE="true",
        WANDB_ERROR_REPORTING="false",
        MLFLOW_ALLOW_FILE_STORE="true",
        MLFLOW_DISABLE_TELEMETRY="true",
        DO_NOT_TRACK="true",
        TRACKIO_DIR=folder,
        HF_HUB_OFFLINE="1",
    )


def main():
    # A tool's own processes get no end of the pipe: it closes with this process.
    lines = os.fdopen(os.dup(0), encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    # Modules are those of the interpreter, not files of the run folder.
    here = Path(__file__).resolve().parent
    sys.path[:] = [place for place in sys.path if Path(place).resolve() != here]
    first = lines.readline()
    if not first:
        return
    start = json.loads(first)
    stay_offline(start["folder"])
    state = State(start)
    tool = TOOLS[start["kind"]](start, state.run)
    state.run = tool.id
    state.write()
    how = "stopped"
    for text in lines:
        if not text.endswith("\n"):
            break
        line = json.loads(text)
        if "end" in line:
            how = line["end"]
            break
        if line["values"] and not state.has(line):
            tool.log(line["step"], line["values"])
            state.add(line)
    tool.end(how)


if __name__ == "__main__":
    main()
