"""Beginnings of children's stories, for the model to go on with. Run: python3 examples/stories260k/make_prompts.py"""

import itertools
import json
import pathlib

HERE = pathlib.Path(__file__).parent
NAMES = [
    *["Lily", "Tom", "Anna", "Ben", "Sam", "Mia", "Max", "Sue", "Tim", "Lucy"],
    *["Jack", "Amy", "Bob", "Sara", "Mary", "Jane", "Joe", "Emma", "Leo", "Ella"],
]
HELD_OUT = 5
SCENES = [
    "{0} was in the park.",
    "{0} had a red ball.",
    "One day, {0} saw a big dog.",
    "Once upon a time, {0} lived in a small house.",
    "{0} was very sad.",
    "{0} wanted to play with a friend.",
    "It was a sunny day. {0} went outside.",
    "{0} found a toy under the bed.",
    "{0} and mom went to the store.",
    "{0} liked to eat apples.",
]

rows = [{"prompt": scene.format(name)} for scene, name in itertools.product(SCENES, NAMES)]
# The last names are held out with every scene.
train = [row for i, row in enumerate(rows) if i % len(NAMES) < len(NAMES) - HELD_OUT]
held_out = [row for i, row in enumerate(rows) if i % len(NAMES) >= len(NAMES) - HELD_OUT]
for name, part in [("prompts.jsonl", train), ("eval_prompts.jsonl", held_out)]:
    (HERE / name).write_text("".join(json.dumps(row) + "\n" for row in part))
