"""What the parts of run.py share: results that survive, a clock, and processes that are stopped in time."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent


class Failed(Exception):
    """A process that ended with an error or was cut off, with what it had said."""

    def __init__(self, reason, output="", peak=0):
        super().__init__(reason)
        self.output, self.peak = output, peak


class Clock:
    def __init__(self, seconds):
        self.end = time.monotonic() + seconds

    def left(self):
        """Seconds that are left, at least one: what begins too late is cut off and says so."""
        return max(self.end - time.monotonic(), 1.0)


class Results:
    """Lines of JSON, each on the disk before the next is measured."""

    def __init__(self, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.file, self.lines = path, path.open("w"), []

    def add(self, line):
        self.lines.append(line)
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()
        os.fsync(self.file.fileno())
        print("| " + " | ".join(f"{name} {short(value)}" for name, value in line.items() if name != "part") + " |", flush=True)


def short(value):
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def on_cuda(args):
    return args.device.startswith("cuda")


def card_bytes():
    """Memory in use on the first card, or None without one."""
    if shutil.which("nvidia-smi") is None:
        return None
    said = subprocess.run(["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"],
                          capture_output=True, text=True)
    return int(said.stdout.split()[0]) * 2**20 if said.returncode == 0 and said.stdout.split() else None


def run(command, seconds, environment=None):
    """Runs a command for some seconds at most; answers its output and its peak memory in bytes."""
    before = card_bytes()
    with tempfile.TemporaryFile("w+") as said:
        try:
            process = subprocess.Popen([str(part) for part in command], stdout=said, stderr=subprocess.STDOUT, start_new_session=True,
                                       env={**os.environ, **(environment or {})})
        except OSError as error:
            raise Failed(str(error)) from error
        peak, done, is_cut = [0], threading.Event(), [False]

        def watch():
            end = time.monotonic() + seconds
            while not done.wait(0.2):
                if before is not None:
                    peak[0] = max(peak[0], (card_bytes() or 0) - before)
                if time.monotonic() > end and not is_cut[0]:
                    is_cut[0] = True
                    os.killpg(process.pid, signal.SIGKILL)

        watcher = threading.Thread(target=watch)
        watcher.start()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        done.set()
        watcher.join()
        said.seek(0)
        output = said.read()
    memory = peak[0] if before is not None else usage.ru_maxrss * 1024
    if is_cut[0]:
        raise Failed(f"cut off after {seconds:.0f} s", output, memory)
    if process.returncode != 0:
        reason = next((line for line in reversed(output.strip().splitlines()) if "rror" in line), output[-200:]).strip()[:200]
        raise Failed(reason, output, memory)
    return output, memory
