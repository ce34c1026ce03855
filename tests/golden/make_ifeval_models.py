"""The model behind IFEval's reference: langdetect's language profiles.

usage: make_ifeval_models.py

Writes crates/setpoint-eval/data/langdetect.bin.gz, which crates/setpoint-eval/data/README.md describes.
"""

import gzip
import importlib.util
import json
from pathlib import Path

HERE = Path(__file__).parent
DATA = HERE.parent.parent / "crates/setpoint-eval/data"


def package(name):
    return Path(importlib.util.find_spec(name).origin).parent


def compress(name, data):
    (DATA / name).write_bytes(gzip.compress(data, 9, mtime=0))


def varint(number):
    out = bytearray()
    while number >= 128:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes(out) + bytes([number])


def langdetect():
    root = package("langdetect")
    profiles = [json.loads(path.read_text("utf-8")) for path in sorted((root / "profiles").iterdir())]
    ngrams = {}
    for index, profile in enumerate(profiles):
        for ngram, count in profile["freq"].items():
            assert 1 <= len(ngram) <= 3 and not {"\n", "\0"} & set(ngram), ngram
            ngrams.setdefault(ngram, []).append((index, count))
    from langdetect.utils.ngram import NGram

    lines = [" ".join([p["name"], *map(str, p["n_words"])]) for p in profiles]
    lines += ["", NGram.LATIN1_EXCLUDED]
    lines += [base + mark + composed for mark, row in zip(NGram.DMARK_CLASS, NGram.NORMALIZED_VI_CHARS) for base, composed in zip(NGram.TO_NORMALIZE_VI_CHARS, row)]
    lines += ["", *NGram.CJK_CLASS, "", *sorted(ngrams), "", ""]
    rows = [ngrams[ngram] for ngram in sorted(ngrams)]
    out = "\n".join(lines).encode()
    out += bytes(len(row) for row in rows)
    out += bytes(index for row in rows for index, _ in row)
    out += b"".join(varint(count) for row in rows for _, count in row)
    compress("langdetect.bin.gz", out)


langdetect()
