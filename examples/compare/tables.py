#!/usr/bin/env python3
"""What `setpoint compare` wrote, as tables in Markdown and as a picture.

usage: tables.py COMPARE                                the tables of one comparison
       tables.py picture OUTPUT.svg TITLE=COMPARE...    reward and the second judge's metric against KL, a row for each comparison

Intervals are those of compare.json: 95 % over prompts, seeds averaged, paired for differences.
"""

import json
import sys
from pathlib import Path

SHOWN = {"reward": "reward", "gold": "gold quality", "repetition": "repetition"}
WIDTH, HEIGHT, LEFT, TOP, GAP, ROW = 330, 220, 58, 40, 70, 300
# Okabe and Ito's colours; the control is dashed.
COLOURS = {"dro": "#000000", "nll": "#7f7f7f", "dpo": "#0072b2", "ipo": "#56b4e9", "orpo": "#e69f00", "simpo": "#cc79a7", "rpo": "#009e73",
           "cal_dpo": "#d55e00", "slic_hf": "#8a2be2", "kto": "#a6761d"}


def read(compare):
    """compare.json of a folder, and the metrics shown of it."""
    data = json.loads((Path(compare) / "compare.json").read_text(encoding="utf-8"))
    return data, [metric for metric in data["frontier"]["metrics"] if metric["metric"] in SHOWN]


def number(value, digits=2, sign=""):
    return f"{value:{sign}.{digits}f}".replace("-", "−")


def interval(estimate, sign=""):
    if estimate is None:
        return "—"
    return f"{number(estimate['value'], sign=sign)} [{number(estimate['low'], sign=sign)}, {number(estimate['high'], sign=sign)}]"


def settings(point):
    name = {"learning_rate": "lr", "beta_sigma": "β/σ", "beta": "β", "lambda": "λ", "length_normalize": "per token"}
    return ", ".join(f"{name.get(key.split('.')[-1], key.split('.')[-1])} {value:g}" if isinstance(value, float) else f"{name.get(key.split('.')[-1], key)} {value}"
                     for key, value in (point or {}).items())


def spread(figures, key, digits=2):
    figure = figures.get(key)
    if figure is None:
        return ""
    return f"{number(figure['mean'], digits)} ± {number(figure['deviation'] or 0.0, digits)}"


def selected(data):
    """The settings selected within the KL, seed by seed on the prompts of the report."""
    print("| method | selected settings | seeds | reward | KL | win rate to SFT | pair accuracy | chosen | rejected | tokens |\n|" + "---|" * 10)
    base = next((m["figures"] for m in data["methods"] if m["seeds"]), None)
    if base:
        print(f"| SFT | | | {number(base['baseline_reward']['mean'])} | 0 | | | | | {number(base['baseline_tokens']['mean'], 1)} |")
    for m in sorted(data["methods"], key=lambda m: -m["figures"].get("reward", {"mean": -1e9})["mean"]):
        if not m["seeds"]:
            print(f"| `{m['method']}` | {m['too_far'] or 'failed'} | | | | | | | | |")
            continue
        f, wins = m["figures"], m["win_rate"]
        print(f"| `{m['method']}` | {settings(m['settings'])} | {', '.join(map(str, m['seeds']))} | {spread(f, 'reward')} | {spread(f, 'kl_exact')} | "
              f"{interval(wins)} | {spread(f, 'pair_accuracy', 3)} | {spread(f, 'chosen_log_ratio')} | {spread(f, 'rejected_log_ratio')} | {spread(f, 'tokens', 1)} |")


def at_equal_kl(data, metrics):
    """What each method reaches at each KL, and how much more than the baseline."""
    baseline = data["frontier"]["baseline"]
    for kl in dict.fromkeys(at["kl"] for at in metrics[0]["at"]):
        titles = [title for metric in metrics for title in (SHOWN[metric["metric"]], f"less {baseline.upper()}")]
        print(f"\nAt {kl:g} nats:\n\n| method | " + " | ".join(titles) + " |\n|" + "---|" * (1 + len(titles)))
        rows = {}
        for metric in metrics:
            for at in metric["at"]:
                if at["kl"] == kl:
                    rows.setdefault(at["method"], []).extend([interval(at["estimate"]), "" if at["method"] == baseline else interval(at["difference"], "+")])
        for method, cells in rows.items():
            print(f"| `{method}` | " + " | ".join(cells) + " |")


def models(data, metrics):
    """Every model on the lines: where it is and what it reaches."""
    print("\n| method | settings | KL | " + " | ".join(SHOWN[m["metric"]] for m in metrics) + " | models |\n|" + "---|" * (4 + len(metrics)))
    for i, line in enumerate(metrics[0]["lines"]):
        for point in line["points"]:
            values = [next((p["value"] for l in m["lines"] if l["method"] == line["method"] for p in l["points"] if p["settings"] == point["settings"]), None) for m in metrics]
            print(f"| `{line['method']}` | {point['settings']} | {number(point['kl'])} | " + " | ".join("" if v is None else number(v) for v in values) + f" | {len(point['models'])} |")


def panel(metric, left, top, title):
    """The SVG elements of a metric's lines. KL beyond 6 nats is left out, so that the lines near the SFT model can be told apart."""
    farthest = min(6.0, max(p["kl"] for line in metric["lines"] for p in line["points"]))
    shown = {line["method"]: [p for p in line["points"] if p["kl"] <= 6.0] for line in metric["lines"]}
    values = [p["value"] for points in shown.values() for p in points]
    low, high = min(values), max(values)
    pad = 0.08 * ((high - low) or 1.0)
    low, high = low - pad, high + pad
    x = lambda kl: left + WIDTH * kl / (1.05 * farthest)  # noqa: E731
    y = lambda value: top + HEIGHT * (high - value) / (high - low)  # noqa: E731
    step = next(s for s in (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0) if (high - low) / s <= 7)
    out = [f'<text x="{left}" y="{top - 12}" font-weight="600">{title}</text>',
           f'<rect x="{left}" y="{top}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#c9ced4"/>']
    tick = step * (low // step + 1)
    while tick <= high:
        out.append(f'<line x1="{left}" x2="{left + WIDTH}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="#e6e9ec"/>')
        out.append(f'<text x="{left - 6}" y="{y(tick) + 4:.1f}" text-anchor="end" font-size="11">{number(tick, 2 if step < 0.1 else 1)}</text>')
        tick += step
    for kl in range(int(1.05 * farthest) + 1):
        out.append(f'<text x="{x(kl):.1f}" y="{top + HEIGHT + 15}" text-anchor="middle" font-size="11">{kl}</text>')
    out.append(f'<text x="{left + WIDTH / 2}" y="{top + HEIGHT + 30}" text-anchor="middle" font-size="11">KL from the SFT model, nats per response</text>')
    for method, points in shown.items():
        colour, dash = COLOURS.get(method, "#24292f"), ' stroke-dasharray="5 3"' if method == "nll" else ""
        wide = 2.6 if method == "dro" else 1.4
        place = " ".join(f"{x(p['kl']):.1f},{y(p['value']):.1f}" for p in points)
        if len(points) > 1:
            out.append(f'<polyline points="{place}" fill="none" stroke="{colour}" stroke-width="{wide}"{dash}/>')
        out += [f'<circle cx="{x(p["kl"]):.1f}" cy="{y(p["value"]):.1f}" r="3" fill="{colour}"/>' for p in points]
    return out


def picture(output, worlds):
    body, methods = [], []
    for row, (title, compare) in enumerate(worlds):
        data, metrics = read(compare)
        methods += [line["method"] for line in metrics[0]["lines"] if line["method"] not in methods]
        for column, metric in enumerate(metrics[:2]):
            body += panel(metric, LEFT + column * (WIDTH + GAP), TOP + row * ROW, f"{title}: {SHOWN[metric['metric']]}")
    bottom = TOP + len(worlds) * ROW
    for i, method in enumerate(methods):
        place, line = LEFT + 150 * (i % 5), bottom + 18 * (i // 5)
        dash = ' stroke-dasharray="5 3"' if method == "nll" else ""
        body.append(f'<line x1="{place}" x2="{place + 24}" y1="{line - 4}" y2="{line - 4}" stroke="{COLOURS.get(method, "#24292f")}" stroke-width="2"{dash}/>')
        body.append(f'<text x="{place + 30}" y="{line}" font-size="12">{method}</text>')
    width, height = LEFT + 2 * WIDTH + GAP + 20, bottom + 18 * ((len(methods) + 4) // 5) + 6
    svg = (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
           f'font-family="system-ui, sans-serif" font-size="13" fill="#24292f">\n<rect width="{width}" height="{height}" fill="#ffffff"/>\n')
    Path(output).write_text(svg + "\n".join(body) + "\n</svg>\n", encoding="utf-8")


def main(arguments):
    match arguments:
        case ["picture", output, *worlds] if worlds:
            picture(output, [world.rsplit("=", 1) for world in worlds])
        case [compare]:
            data, metrics = read(compare)
            selected(data)
            at_equal_kl(data, metrics)
            models(data, metrics)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
