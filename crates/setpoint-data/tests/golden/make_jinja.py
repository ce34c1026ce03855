"""Small templates, one for each thing that chat templates do, rendered by transformers' own environment.

    python3 -m venv .venv && .venv/bin/pip install transformers==5.23.0 jinja2==3.1.6
    .venv/bin/python crates/setpoint-data/tests/golden/make_jinja.py

writes jinja.json beside this file: [{"template", "text" or "error"}], rendered with the variables below.
"""

import json
import pathlib

from transformers.utils.chat_template_utils import render_jinja_template

MESSAGES = [
    {"role": "system", "content": "Be <b>kind</b>."},
    {"role": "user", "content": "  two  words\n"},
    {"role": "assistant", "content": "<think>\nhm\n</think>\n\nanswer"},
    {"role": "user", "content": [{"type": "text", "text": "part"}, {"type": "image"}]},
]
VARIABLES = {
    "bos_token": "<s>",
    "n": 3,
    "x": 2.5,
    "yes": True,
    "nothing": None,
    "empty": [],
    "numbers": [3, 1, 2],
    "words": ["b", "A", "c"],
    "record": {"b": 1, "a": [1, {"c": None}], "u": "ü\n\"q\"", "e": {}, "f": 1e-7, "t": True},
    "text": "a-b_c d",
}

TEMPLATES = r"""
{{ n }} {{ x }} {{ yes }} {{ nothing }} {{ missing }} {{ empty }} {{ numbers }} {{ words }}
{{ record.a }}{{ record.u }}{{ record.f }}{{ [record.e, record.t, 'ü\n"q"', "'"] }}
{{ [1.0, 'it''s', "q", none, true, (1, 2), {'k': 'v'}] }}
{{ 7 / 2 }} {{ 7 // 2 }} {{ 7 % 3 }} {{ 2 ** 8 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 1 + 1.5 }} {{ 'a' * 3 }} {{ [1] + [2] }}
{{ 1 < 2 <= 2 }} {{ 1 == 1.0 }} {{ 'a' < 'b' }} {{ not yes }} {{ yes and n }} {{ nothing or 'alt' }} {{ n and 0 or 'z' }}
{{ 'a' in 'abc' }} {{ 'role' in messages[0] }} {{ 5 not in numbers }} {{ 'x' ~ 1 ~ none }}
{{ messages[0].role }} {{ messages[0]['role'] }} {{ messages[-1].role }} {{ messages[1:3] | length }} {{ messages[::-1][0].role }}
{{ text[1:] }} {{ text[:-1] }} {{ text[::-1] }} {{ text[2] }} {{ numbers[-1] }}
{{ messages[9] is defined }} {{ messages[0].tool_calls is defined }} {{ missing is undefined }} {{ nothing is none }} {{ nothing is defined }}
{{ n is number }} {{ n is integer }} {{ x is float }} {{ text is string }} {{ record is mapping }} {{ numbers is sequence }} {{ text is iterable }} {{ numbers is iterable }}
{{ yes is boolean }} {{ yes is true }} {{ yes is false }} {{ n is odd }} {{ n is even }} {{ n is divisibleby 3 }} {{ n is eq 3 }} {{ n is in [1, 3] }} {{ 'A' is upper }}
{{ missing | default('d') }} {{ '' | default('d') }} {{ '' | default('d', true) }} {{ nothing | default('d') }}
{{ text | upper }} {{ text | capitalize }} {{ text | title }} {{ text | replace('-', '+') }} {{ text | length }} {{ '  a ' | trim }} {{ '  a ' | trim | length }}
{{ numbers | join(', ') }} {{ words | sort | join }} {{ numbers | sort(reverse=true) }} {{ numbers | first }} {{ numbers | last }} {{ numbers | max }} {{ numbers | sum }} {{ numbers | reverse | list }}
{{ messages | map(attribute='role') | join(',') }} {{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ messages | rejectattr('role', 'equalto', 'user') | map(attribute='role') | list }}
{{ numbers | select('odd') | list }} {{ words | map('upper') | list }} {{ words | map('length') | sum }} {{ [1, 1, 2] | unique | list }} {{ numbers | batch(2) | list }}
{{ {'z': 1, 'y': 'b'} | items | list }} {{ {'z': 1, 'y': 'b'} | dictsort }} {{ record | length }} {{ record.keys() | list }} {{ record.values() | list | length }}
{% for k, v in record.items() %}{{ k }}={{ v }};{% endfor %}
{{ record | tojson }}
{{ record | tojson(indent=2) }}
{{ record | tojson(ensure_ascii=true, sort_keys=true) }}
{{ messages | tojson }}
{{ '</script>&\'"' | tojson }} {{ 1.0 | tojson }} {{ 1e22 | tojson }} {{ none | tojson }} {{ [1, 2] | tojson(separators=(',', ':')) }}
{{ missing | tojson }}
{{ record.get('b') }} {{ record.get('zz') }} {{ record.get('zz', 'd') }} {{ record['zz'] is defined }}
{{ text.upper() }} {{ text.split('-') }} {{ 'a b  c'.split() }} {{ 'a,b,c'.split(',', 1) }} {{ text.replace('a', 'z') }} {{ text.startswith('a') }} {{ text.endswith(('x', 'd')) }} {{ text.find('b') }} {{ text.title() }} {{ 'xxaxx'.strip('x') }}
{{ messages[2].content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') }}|{{ messages[2].content.split('</think>')[-1].lstrip('\n') }}
{{ '{} and {}'.format(1, 'b') }} {{ '%s-%d' | format('a', 3) }} {{ ', '.join(words) }}
{{ 'a\nb'.splitlines() }} {{ 'aXbX'.count('X') }} {{ 'abc'.isdigit() }} {{ '12'.isdigit() }} {{ 'AbC'.lower() }} {{ 'abc'.capitalize() }}
{% for m in messages %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.revindex }}{{ loop.previtem.role if loop.previtem is defined }}{{ loop.nextitem is defined }};{% endfor %}
{% for m in messages if m.role == 'user' %}{{ loop.index }}{{ m.role }}{% else %}none{% endfor %}{% for m in empty %}x{% else %}none{% endfor %}
{% for m in messages %}{% if loop.index == 2 %}{% continue %}{% endif %}{% if loop.index == 4 %}{% break %}{% endif %}{{ m.role }}{% endfor %}
{% for i in range(3) %}{{ i }}{% endfor %}{% for i in range(5, 0, -2) %}{{ i }}{% endfor %}{{ range(4) | list }}
{% for i in range(3) %}{{ loop.cycle('a', 'b') }}{% endfor %}
{% set ns = namespace(seen=false, count=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.seen = true %}{% set ns.count = ns.count + 1 %}{% endif %}{% endfor %}{{ ns.seen }}{{ ns.count }}
{% set v = 1 %}{% for i in [1] %}{% set v = 2 %}{% endfor %}{{ v }}{% if true %}{% set v = 3 %}{% endif %}{{ v }}
{% set block %}inner {{ n }}{% endset %}[{{ block }}]{% set a, b = 1, 2 %}{{ a }}{{ b }}
{% macro m(a, b='d', c=none) %}<{{ a }}{{ b }}{{ c }}>{% endmacro %}{{ m(1) }}{{ m(1, c=2) }}{{ m(a='z', b='y') }}
{% macro outer() %}({{ caller() }}){% endmacro %}{% call outer() %}in{% endcall %}
{% macro rec(d) %}{% if d > 0 %}{{ d }}{{ rec(d - 1) }}{% endif %}{% endmacro %}{{ rec(3) }}
{% filter upper %}abc {{ n }}{% endfilter %}{% with q = 5 %}{{ q }}{% endwith %}{{ q is defined }}
{{ 'yes' if yes else 'no' }}{{ 'x' if not yes }}|{{ ('a' if n > 2 else 'b') + 'c' }}
{% raw %}{{ raw }}{% endraw %}{# comment #}{{ '{{' }}{{ "{%" }}
a  {%- if yes -%}  b  {%- endif -%}  c
a {{- ' b ' -}} c
⏎{% if yes %}⏎  line⏎  {% if yes %}⏎    deep⏎  {% endif %}⏎{% endif %}⏎end⏎⏎
⏎   {%+ if yes %}kept{% endif +%}⏎   {{ n }}⏎   {# c #}⏎  x⏎
⇥{% for i in numbers %}⇥{{ i }}⇥{% endfor %}⇥⏎
{%- for m in messages %}⏎    {{- m.role }}⏎    {%- if not loop.last %}⏎        {{- ',' }}⏎    {%- endif %}⏎{%- endfor %}⏎
{{ "a\nb\t\"q\" \u00e9 \\ \x41" }}{{ 'it\'s' }}
{% if messages[3].content is string %}s{% else %}{% for part in messages[3].content %}{% if part.type == 'text' %}{{ part.text }}{% elif part['type'] == 'image' %}[img]{% endif %}{% endfor %}{% endif %}
{{ raise_exception('no: ' ~ n) }}
{{ missing.attribute }}
{{ missing + 'a' }}
{{ 'a' + n }}
{{ 'a' + nothing }}
{{ messages[0].nope.deeper }}
{{ messages.append(1) }}
{{ 1 / 0 }}
{{ unknown_function() }}
{{ n | unknown_filter }}
{% generation %}g{{ n }}{% endgeneration %}{%- generation -%} h {%- endgeneration -%} i
{% set l = [] %}{% set l = l + [1] %}{% set l = l + ['b'] %}{{ l }}{{ l | length }}
{{ ({'a': 1, 'b': [2]}) | tojson }}{{ dict(k=1) }}{{ {'a': 1}['a'] }}{{ ('a', 'b')[1] }}{{ (1,) }}
{{ 10 | string + 'x' }}{{ '12' | int + 1 }}{{ 'z' | int(5) }}{{ '1.5' | float }}{{ 2.567 | round(1) }}{{ 2.5 | int }}{{ -3 | abs }}
{{ 'line1\nline2' | indent(2) }}|{{ '<a>' | escape }}|{{ '<a>' | e }}|{{ '<a>' | safe }}
{{ n is ge 3 }}{{ text is lower }}{{ 'a' is ne 'b' }}{{ 3 is gt 2 }}{{ 3 is lessthan 2 }}
{{ tools is none }}{{ documents is none }}{{ tools is defined }}{{ add_generation_prompt }}{{ bos_token }}{{ eos_token }}
{{ messages | groupby('role') | length }}{{ (messages | first).role }}{{ messages | map(attribute='nope', default='d') | list }}
{{ 1_000 }} {{ 1e3 }} {{ 12345678901234567890 }} {{ 1e100 }} {{ 0.1 + 0.2 }} {{ 1e16 }} {{ 123456.0 }} {{ 1e-5 }}
{{ true }}{{ True }}{{ None }}{{ none }}{{ False }}
{{ text | list }}|{{ text | first }}|{{ '' | first }}
""".strip("\n").split("\n")


def render(template):
    try:
        rendered, _ = render_jinja_template([MESSAGES], chat_template=template, add_generation_prompt=True, **VARIABLES)
        return {"template": template, "text": rendered[0]}
    except Exception as error:
        return {"template": template, "error": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    # In the list above ⏎ and ⇥ stand for a line break and a tab outside of string literals.
    templates = [t.replace("⏎", "\n").replace("⇥", "\t") for t in TEMPLATES]
    rows = [json.dumps(row) for row in map(render, templates)]
    head = json.dumps({"messages": MESSAGES, "variables": VARIABLES})
    path = pathlib.Path(__file__).with_name("jinja.json")
    path.write_text(head[:-1] + ', "rows": [\n' + ",\n".join(rows) + "\n]}\n")
    print(len(rows), "templates")
