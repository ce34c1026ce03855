#!/usr/bin/env python3
"""Leaves out the prompts whose responses all have the same reward: no method but DRO learns anything from them.

usage: distinct.py REWARDS OUTPUT
"""

import json
import sys

if len(sys.argv) != 3:
    sys.exit(__doc__)
with open(sys.argv[1], encoding="utf-8") as lines, open(sys.argv[2], "w", encoding="utf-8") as out:
    out.writelines(line for line in lines if len(set(json.loads(line)["rewards"])) > 1)
