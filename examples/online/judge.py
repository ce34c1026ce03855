#!/usr/bin/env python3
"""The gold judge of the demo's world as a source of rewards: `[reward.command]` of `setpoint align`, `[command]` of `annotate` and `eval`.

Reads a line of JSON for each response and prints a line with its gold quality, from -1 to 4.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "demo"))
import gold  # noqa: E402

for line in sys.stdin:
    item = json.loads(line)
    try:
        # A conversation is one text, with the role before each turn.
        _, quality = gold.judge(item["prompt"].removeprefix("user: "), item["response"])
        answer = {"score": quality}
    except KeyError:
        answer = {"error": f"{item['prompt']!r} is not one of the demo's questions"}
    print(json.dumps(answer), flush=True)
