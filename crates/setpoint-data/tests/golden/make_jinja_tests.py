"""Every test and filter of jinja2 on every kind of value, as transformers' own environment evaluates them.

Each row is an expression, evaluated for all values of `values` in turn as `x`. A result is the text of `[expression]`,
so that Python's repr tells '1' from 1, or null where jinja2 raises. Run with jinja2 3.1.6 and transformers 5.24.
"""

import copy
import json
import pathlib

from transformers.utils.chat_template_utils import _compile_jinja_template

HERE = pathlib.Path(__file__).parent

# `u` stays undefined.
VALUES = {
    "none": None,
    "true": True,
    "false": False,
    "zero": 0,
    "one": 1,
    "minus": -3,
    "big": 1234567,
    "half": 2.5,
    "whole": 3.0,
    "small": -1e-07,
    "empty": "",
    "word": "Ab c",
    "digits": "12",
    "float_text": " -1.5 ",
    "upper": "ABC",
    "lower": "abc",
    "markup": "<b>x</b> & 'y' \"z\"",
    "lines": "é one\n two three\n\nfour",
    "long": "the quick brown fox jumps over the lazy dog " * 8,
    "url": "see https://example.org/a?b=1&c=2 and www.x.com.",
    "template": "%s-%s",
    "list0": [],
    "ints": [3, 1, 2, 3],
    "floats": [1.5, -2.0],
    "words": ["b", "a", "B", "a"],
    "mixed": [1, "a", None, True, 2.5],
    "nested": [[1, 2], [3, 4]],
    "rows": [{"n": 2, "g": "x", "d": {"e": 1}}, {"n": 1, "g": "y", "d": {"e": 2}}, {"n": 3, "g": "x", "d": {}}],
    "map0": {},
    "map": {"b": 1, "a": "z", "B": None},
    "deep": {"k": [1, {"l": "m"}]},
}

ARGS = ["none", "true", "0", "1", "2.5", "''", "'a'", "'Ab c'", "[]", "[1, 'a']", "{}", "{'b': 1}", "missing"]
UNARY_TESTS = """boolean callable defined escaped even false filter float integer iterable lower mapping none number odd
sequence string test true undefined upper""".split()
BINARY_TESTS = """!= < <= == > >= divisibleby eq equalto ge greaterthan gt in le lessthan lt ne sameas""".split()
FILTERS = """abs attr('a') attr('b') batch(2)|list batch(2,'-')|list capitalize center center(9) count d('z') d('z',true) default
default('z') default(1,boolean=true) dictsort dictsort(true) dictsort(by='value') dictsort(reverse=true) e escape
filesizeformat filesizeformat(true) first float float(7) float(default=1.5) forceescape format format(1) format('a','b')
format(a=1) groupby('g')|list groupby('n')|list groupby('g',default='q')|list groupby('d.e')|list groupby(0)|list
groupby(attribute='g',case_sensitive=true)|list indent indent(2) indent(2,true)
indent(2,blank=true) indent('>>') indent(width=1,first=true,blank=true) int int(5) int(default=9,base=16) int(0,2) items|list join
join('-') join('-','n') join(', ',attribute='g') join(1) last length list lower map('upper')|list map('int')|list map(attribute='n')|list
map(attribute='d.e')|list map(attribute='zz',default=0)|list map('default','z')|list map('join','-')|list max max(attribute='n')
max(true) max(case_sensitive=true) min min(attribute='n') pprint reject|list reject('odd')|list reject('string')|list reject('equalto',1)|list
rejectattr('n')|list rejectattr('n','odd')|list rejectattr('n','equalto',1)|list replace('a','z') replace('a','z',1)
replace('','-') replace(1,2) replace(old='b',new='',count=1) reverse|list round round(1) round(0,'floor')
round(1,'ceil') round(method='ceil') round(precision=2) safe select|list select('odd')|list select('string')|list
select('in',[1,'a'])|list selectattr('n')|list selectattr('n','odd')|list selectattr('d.e')|list selectattr('g','equalto','x')|list
selectattr('d.e','defined')|list slice(2)|list slice(3,'-')|list sort sort(true) sort(case_sensitive=true) sort(attribute='n')
sort(attribute='g,n') sort(reverse=true,attribute='n') sort(false,false,'n') string striptags sum sum(attribute='n') sum(start=10) sum('n',5) title
tojson tojson(indent=2) tojson(true) tojson(ensure_ascii=true) tojson(indent='>') tojson(separators=(',',':')) tojson(sort_keys=true) trim trim('a')
trim(chars='b') truncate truncate(9) truncate(9,true) truncate(9,true,'') truncate(9,false,'..',0)
truncate(length=9,killwords=true,end='!',leeway=1) unique|list unique(true)|list unique(attribute='g')|list unique(case_sensitive=true,attribute='n')|list
upper urlencode urlize urlize(10) urlize(nofollow=true,target='_blank') wordcount wordwrap wordwrap(5) wordwrap(5,false) wordwrap(9,wrapstring='|') wordwrap(9,break_on_hyphens=false)
xmlattr xmlattr(false) nosuchfilter""".split()
# What filters do within a condition, as templates write it.
OTHERS = [
    "x is iterable and x is not string",
    "x is iterable and x | length > 0",
    "x is sequence and x | length",
    "x is mapping or x is none",
    "x is defined and x",
    "x is not none and x is iterable",
    "x is string and x is lower",
    "(x or 'fallback')",
    "not x",
    "x if x else 'empty'",
    "x | default('d', true) | string | trim | length",
    "x == x",
    "x in [1, 'a', none]",
    "'a' in x",
    "1 in x",
    "x ~ '|' ~ x",
    "x + x",
    "x * 2",
    "x[0]",
    "x[-1]",
    "x[1:]",
    "x[::-1]",
    "x.a",
    "x['b']",
    "x.b.c",
    "x < 2",
    "x >= 'a'",
    "1 < x < 3",
    "x == [] or x == {}",
    "[x, [x]]",
    "{'k': x}",
    "(x,)",
    "x | string",
    "namespace(v=x).v",
    "dict(k=x)",
    "dict(x)",
    "'%s' % x",
    "'%d' % x",
    "'%5.1f|' % x",
    "'{}'.format(x)",
    "'{:>6}'.format(x)",
    "'{0!r:<3}{k}'.format(x, k=1)",
    "x.upper()",
    "x.strip()",
    "x.split()",
    "x.split(' ', 1)",
    "x.rsplit(' ', 1)",
    "x.splitlines()",
    "x.partition(' ')",
    "x.removeprefix('A')",
    "x.replace('b', 'z')",
    "x.startswith('A')",
    "x.endswith(('c', 'C'))",
    "x.find('b')",
    "x.count('a')",
    "x.title()",
    "x.capitalize()",
    "x.swapcase()",
    "x.lower().isalpha()",
    "x.isdigit()",
    "x.zfill(4)",
    "x.ljust(5, '.')",
    "x.center(6)",
    "'-'.join(x)",
    "x.get('b', 'none')",
    "x.keys() | list",
    "x.values() | list",
    "x.items() | list",
    "x.index('a')",
    "x.append(1)",
    "x | tojson | length",
]

NAMES = ["u", *VALUES]


def evaluate(expression):
    template = None
    results = []
    for name in NAMES:
        # A copy: `x | indent` of a list appends to it before it fails.
        extra = {} if name == "u" else {"x": copy.deepcopy(VALUES[name])}
        try:
            template = template or _compile_jinja_template("{{ [" + expression + "] }}")
            text = template.render(messages=[], tools=None, documents=None, add_generation_prompt=False, **extra)
        except Exception:  # noqa: BLE001: whatever it raises, the other side must fail as well
            text = None
        if text is not None and " object at 0x" in text:
            raise SystemExit(f"{expression} of {name} prints an address: {text}")
        results.append(text)
    return {"expression": expression, "results": results}


rows = [evaluate(f"x is {test}") for test in UNARY_TESTS]
rows += [evaluate(f"x is not {test}") for test in ("iterable", "none", "defined")]
rows += [evaluate(f"[x] | select('{test}', {arg}) | list | length") for test in BINARY_TESTS for arg in ARGS]
rows += [evaluate(f"x is {test} {arg}") for test in ("divisibleby", "eq", "in", "sameas", "lt") for arg in ARGS if arg[0] not in "[{"]
rows += [evaluate(f"x | {f}") for f in FILTERS]
rows += [evaluate(expression) for expression in OTHERS]
rows += [evaluate(f"'{name}' is {kind}") for kind in ("filter", "test") for name in ("tojson", "items", "iterable", "nosuch")]

out = {"names": NAMES, "values": VALUES, "rows": rows}
with open(HERE / "jinja_tests.json", "w") as file:
    json.dump(out, file, ensure_ascii=False, indent=0)
    file.write("\n")
print(len(rows), "expressions,", sum(r is None for row in rows for r in row["results"]), "errors")
