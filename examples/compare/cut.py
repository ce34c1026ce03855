#!/usr/bin/env python3
"""Cuts stories after the last sentence that ends between 62 and 82 words; drops those without such an end.

usage: cut.py SAMPLES OUTPUT, rows of `prompt` and `responses` in, rows of `prompt` and `completion` out
"""

import json
import re
import sys

SHORTEST, LONGEST = 62, 82


def text(response):
    """The text of a response, which is a text or a list of messages."""
    return response if isinstance(response, str) else response[-1]["content"]


def cut(story):
    """The story up to its last sentence of the lengths wanted, or None."""
    ends = [match.end() for match in re.finditer(r'[.!?]"?(?=\s|$)', story)]
    ends = [end for end in ends if SHORTEST <= len(story[:end].split()) <= LONGEST]
    return story[:ends[-1]] if ends else None


def main(samples, output):
    with open(samples, encoding="utf-8") as lines, open(output, "w", encoding="utf-8", newline="\n") as out:
        for row in map(json.loads, lines):
            for story in map(cut, map(text, row["responses"])):
                if story:
                    out.write(json.dumps({"prompt": row["prompt"], "completion": story}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
