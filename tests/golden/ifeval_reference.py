"""IFEval as lm-evaluation-harness grades it, for the scripts of this folder. Language detection has the seed 0, and its profiles are in
alphabetical order; the harness sets neither, so that there the language of an ambiguous text changes from run to run.
"""

import functools
import importlib.util
import logging
import os
import sys
import tempfile
import types
from pathlib import Path

# NLTK's splitter with the parameters of this project: the distributed ones have no clear licence.
own = Path(__file__).parent.parent.parent / "crates/setpoint-eval/data/sentences_english.txt"
parts = own.read_text("utf-8").split("\n\n")
folder = Path(tempfile.mkdtemp())
model = folder / "tokenizers/punkt_tab/english"
model.mkdir(parents=True)
for name, part in zip(["abbrev_types.txt", "sent_starters.txt", "collocations.tab", "ortho_context.tab"], parts, strict=True):
    (model / name).write_text(part, "utf-8")
os.environ["NLTK_DATA"] = str(folder)

# The packages around the task import torch and much else, which it does not need.
root = Path(importlib.util.find_spec("lm_eval").origin).parent
for name, path in [("lm_eval", root), ("lm_eval.tasks", root / "tasks")]:
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [str(path)]

from langdetect import detector_factory  # noqa: E402

detector_factory.DetectorFactory.seed = 0
listdir = os.listdir
detector_factory.os = types.SimpleNamespace(listdir=lambda path: sorted(listdir(path)), path=os.path)
from lm_eval.tasks.ifeval import instructions, instructions_registry, instructions_util, utils  # noqa: E402

logging.disable(logging.ERROR)
# Many instructions ask for the language, the sentences or the words of one text.
detect = functools.lru_cache(None)(detector_factory.detect)
instructions.langdetect = types.SimpleNamespace(detect=detect, LangDetectException=instructions.langdetect.LangDetectException)
instructions_util.count_sentences = functools.lru_cache(None)(instructions_util.count_sentences)
instructions_util.nltk.word_tokenize = functools.lru_cache(None)(instructions_util.nltk.word_tokenize)


def verdicts(instruction, kwargs, response, prompt=""):
    """Whether a response follows an instruction, strictly and loosely."""
    row = utils.InputExample(0, [instruction], prompt, [kwargs])
    strict = utils.test_instruction_following_strict(row, response)
    loose = utils.test_instruction_following_loose(row, response)
    return strict.follow_all_instructions, loose.follow_all_instructions


__all__ = ["detect", "instructions", "instructions_registry", "instructions_util", "utils", "verdicts"]
