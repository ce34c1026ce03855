"""Checks tracker.py against wandb, mlflow and trackio: `check_trackers.py [wandb | mlflow | trackio ...]`.

    pip install wandb mlflow-skinny trackio
    python tests/check_trackers.py

For each tool, one process gets the first twenty steps of a run and loses its input, as if the run was killed. A second one gets the steps
from the last checkpoint, the tenth, to the thirtieth, and the end. What the tool then reads from its folder must have every step once.
"""

import json
import os
import struct
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

SCRIPT = Path(__file__).resolve().parent.parent / "crates/setpoint/src/training/tracker/tracker.py"
SECRET = "f00df00df00df00df00df00df00df00df00df00d"
CONFIG = {"train.learning_rate": 5e-7, "align.method": "dro", "data.path": "rows.jsonl"}


def lines(first, last):
    """Lines of training metrics at every step, and of an evaluation at every fifth."""
    for step in range(first, last + 1):
        values = {"train/loss": 1 / step, "train/rewards/margins": step / 7}
        yield {"step": step, "kind": "train", "values": values}
        if step % 5 == 0:
            yield {"step": step, "kind": "eval", "values": {"eval/loss": 2 / step}}


def expected():
    """Values by name and step."""
    found = {}
    for line in lines(1, 30):
        for name, value in line["values"].items():
            found.setdefault(name, []).append((line["step"], value))
    return found


def hand_over(start, messages):
    text = "".join(json.dumps(message) + "\n" for message in [start, *messages])
    environment = {**os.environ, "WANDB_API_KEY": SECRET, "WANDB_MODE": "online", "MLFLOW_TRACKING_URI": "http://no.such.host"}
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], input=text, text=True, capture_output=True, env=environment, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert SECRET not in done.stdout + done.stderr


def records(path):
    """The records of a file of wandb: a header of 7 bytes, then LevelDB's log format in blocks of 32 KiB."""
    data, at, parts = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield parts
            parts = b""


def read_wandb(folder, project, state):
    from wandb.proto import wandb_internal_pb2 as pb

    found, ids, settings = {}, set(), {}
    files = sorted(folder.glob("wandb/offline-run-*/run-*.wandb"), key=lambda file: file.stat().st_mtime)
    assert len(files) == 2, files
    for file in files:
        for data in records(file):
            record = pb.Record()
            record.ParseFromString(data)
            if record.HasField("run"):
                assert record.run.project == project and record.run.display_name == "dro-1"
                ids.add(record.run.run_id)
                settings.update({item.key: json.loads(item.value_json) for item in record.run.config.update})
            if record.HasField("history"):
                row = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
                for name, value in row.items():
                    if not name.startswith("_"):
                        found.setdefault(name, []).append((row["_step"], value))
    assert ids == {state["run"]}, ids
    return found, {key: value for key, value in settings.items() if key != "_wandb"}


def read_mlflow(folder, project, state):
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=folder.as_uri())
    experiment = client.get_experiment_by_name(project)
    [run] = client.search_runs([experiment.experiment_id])
    assert (run.info.run_id, run.info.run_name, run.info.status) == (state["run"], "dro-1", "FINISHED")
    names = run.data.metrics
    found = {name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)] for name in names}
    return found, {key: type(CONFIG[key])(value) for key, value in run.data.params.items()}


def read_trackio(folder, project, state):
    os.environ["TRACKIO_DIR"] = str(folder)
    import trackio
    from trackio.sqlite_storage import SQLiteStorage

    [run] = trackio.Api().runs(project)
    assert run.name == state["run"] == "dro-1"
    found = {}
    for row in SQLiteStorage.get_logs(project, run.name):
        for name, value in row.items():
            if name not in ("step", "timestamp"):
                found.setdefault(name, []).append((row["step"], value))
    return found, {key: value for key, value in run.config.items() if not key.startswith("_")}


READERS = {"wandb": read_wandb, "mlflow": read_mlflow, "trackio": read_trackio}


def check(kind):
    with tempfile.TemporaryDirectory() as place:
        folder, state = Path(place) / "tracker", Path(place) / "tracker.json"
        folder.mkdir()
        start = {"kind": kind, "project": "setpoint", "name": "dro-1", "folder": str(folder), "state": str(state)}
        start["config"] = CONFIG
        hand_over(start, lines(1, 20))
        hand_over(start, [*lines(11, 30), {"end": "finished"}])
        found, settings = READERS[kind](folder, "setpoint", json.loads(state.read_text()))
        assert found == expected(), (found, expected())
        assert settings == CONFIG, settings
        for file in Path(place).rglob("*"):
            assert not file.is_file() or SECRET.encode() not in file.read_bytes(), file
    package = "mlflow-skinny" if kind == "mlflow" else kind
    try:
        found = version(package)
    except ModuleNotFoundError:
        found = version(kind)
    print(f"{kind} {found}: every step once, with the settings")


if __name__ == "__main__":
    for kind in sys.argv[1:] or READERS:
        check(kind)
