#!/usr/bin/env python3
"""The demo's gold judge as a command of `setpoint eval`: reads a line of JSON for each response and prints its quality, from -1 to 4."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "demo"))
import gold  # noqa: E402

for line in sys.stdin:
    item = json.loads(line)
    _, quality = gold.judge(item["prompt"].removeprefix("user: "), item["response"])
    print(json.dumps({"score": quality}), flush=True)
