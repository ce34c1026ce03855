"""Pairs of mathematical answers with the verdict of math-verify, which decides with sympy.

`pip install math-verify latex2sympy2_extended[antlr4_13_2]`. Rounded decimals are left out: math-verify compares six digits, we compare all.
"""

import importlib.metadata
import json
import pathlib

from math_verify import LatexExtractionConfig, parse, verify

PAIRS = r"""
\frac{3}{4} = 0.75
\frac34 = \frac{6}{8}
\dfrac{-1}{2} = -\frac{1}{2}
\frac{1}{3} = \frac{2}{5}
1{,}000 = 1000
12{,}345{,}678 = 12345678
0.1+0.2 = 0.3
2^{10} = 1024
2^{-3} = \frac{1}{8}
10^{3} = 1000
10^{3} = 100
\sqrt{12} = 2\sqrt{3}
\sqrt{12} = 3\sqrt{2}
\sqrt{50}+\sqrt{2} = 6\sqrt{2}
\frac{1}{\sqrt{2}} = \frac{\sqrt{2}}{2}
\frac{1}{2-\sqrt{3}} = 2+\sqrt{3}
\sqrt{3+2\sqrt{2}} = 1+\sqrt{2}
\sqrt[3]{27} = 3
\sqrt[3]{54} = 3\sqrt[3]{2}
\sqrt[4]{16} = 2
\frac{\pi}{6} = \frac{2\pi}{12}
2\pi = \pi
\pi r^2 = r^2\pi
\pi r^2 = 2\pi r
x^2-y^2 = (x-y)(x+y)
x^2+y^2 = (x+y)^2
(x+1)^3 = x^3+3x^2+3x+1
(x+1)^3 = x^3+3x^2+3x
\frac{x}{2}+\frac{x}{3} = \frac{5x}{6}
\frac{x^2-4}{x+2} = x-2
\frac{1}{x}+\frac{1}{y} = \frac{x+y}{xy}
\frac{1}{x+y} = \frac{1}{x}+\frac{1}{y}
2(a+b) = 2a+2b
2(a+b) = 2a+b
-(x-1) = 1-x
x \cdot x = x^2
x^{2}x^{3} = x^5
x^{2}x^{3} = x^6
\left(\frac{2}{3}\right)^2 = \frac{4}{9}
\left(\frac{2}{3}\right)^2 = \frac{4}{3}
5! = 120
\frac{6!}{4!} = 30
|{-7}| = 7
\sin x = \cos x
2\sin x\cos x = \sin(2x)
\sin^2 x+\cos^2 x = 1
\cos(2x) = 1-2\sin^2 x
\tan x = \frac{\sin x}{\cos x}
\sin(\pi/6) = \frac{1}{2}
\ln(e^2) = 2
\ln 8 = 3\ln 2
\ln 6 = \ln 2+\ln 3
\ln 6 = \ln 2\ln 3
e^{x+1} = e \cdot e^x
(1, 2) = (1, 2)
(1, 2) = (2, 1)
(\frac{1}{2}, 3) = (0.5, 3)
(1, 2, 3) = (1, 2)
[0, 1] = [0, 1]
[0, 1) = [0, 1]
(0, 1) = [0, 1]
(-\infty, 2) = (-\infty, \frac{4}{2})
(-\infty, 1) \cup (2, \infty) = (-\infty, 1) \cup (2, \infty)
(-\infty, 1) \cup (2, \infty) = (-\infty, 1) \cup [2, \infty)
\{1, 2, 3\} = \{3, 1, 2\}
\{1, 2, 3\} = \{1, 2\}
\{\frac{1}{2}\} = \{0.5\}
x = 5 = 5
x = 5 = 6
y = 2x+1 = 2x+1
90^\circ = 90
50\% = 50
3\frac{1}{2} = \frac{7}{2}
1\frac{3}{4} = 1.75
"""


def value(text):
    return parse(f"${text}$", extraction_config=[LatexExtractionConfig()], parsing_timeout=None)


def main():
    cases = []
    for line in PAIRS.strip().splitlines():
        a, b = (side.strip() for side in line.rsplit(" = ", 1))
        verdicts = {verify(value(a), value(b), timeout_seconds=None), verify(value(b), value(a), timeout_seconds=None)}
        assert value(a) and value(b) and len(verdicts) == 1, line
        cases.append(dict(a=a, b=b, equal=verdicts.pop()))
    versions = {name: importlib.metadata.version(name) for name in ("math-verify", "latex2sympy2_extended", "sympy")}
    lines = ",\n".join(json.dumps(case) for case in cases)
    text = f'{{"versions": {json.dumps(versions)},\n"cases": [\n{lines}\n]}}\n'
    (pathlib.Path(__file__).parent / "math_answers.json").write_text(text)
    print(sum(case["equal"] for case in cases), "of", len(cases), "are equal")


if __name__ == "__main__":
    main()
