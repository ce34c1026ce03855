#!/usr/bin/env python3
"""DRO with the prompt term and without it: a table, the slopes of the level over log_z0, and Figure 2 of the DRO paper twice.

usage: term.py RUN [OUTPUT.svg], the folder that term.sh wrote

Chosen and rejected are log-ratios on held-out pairs in nats; the paper's figure shows them times beta, and so does the picture.
"""

import json
import sys
from pathlib import Path

WIDTH, HEIGHT, LEFT, TOP, GAP, ROW = 300, 190, 58, 60, 66, 262
COLOURS = {0.25: "#0072b2", 0.5: "#d55e00"}
SHOWN = (0.5, 5.0)  # beta and log_z0 of the curves over the steps


def trials(run):
    """The finished trials: prompt term, beta, log_z0, figures, gold quality, metrics by step."""
    for trial in json.loads((run / "sweep.json").read_text())["trials"]:
        if trial["figures"] is None:
            continue
        folder, s = run / "trials" / trial["trial"], trial["settings"]
        gold = folder / "eval-all-gold.json"
        quality = json.loads(gold.read_text())["reward"] if gold.exists() else None
        metrics = [json.loads(line) for line in (folder / "metrics.jsonl").open(encoding="utf-8")]
        yield {"term": s["align.prompt_term"], "beta": s["align.beta"], "z": s["align.log_z0"], "gold": quality, "metrics": metrics, **trial["figures"],
               "kl": trial["figures"].get("kl_exact") or trial["figures"]["kl"]}


def fit(points):
    """Least squares of y on x: slope and R squared."""
    n = len(points)
    x, y = sum(p[0] for p in points) / n, sum(p[1] for p in points) / n
    xx, yy = sum((p[0] - x) ** 2 for p in points), sum((p[1] - y) ** 2 for p in points)
    xy = sum((p[0] - x) * (p[1] - y) for p in points)
    return xy / xx, xy * xy / (xx * yy) if yy else 1.0


def number(value, digits=2):
    return "" if value is None else f"{value:.{digits}f}".replace("-", "−")


def table(found):
    print("| prompt term | β | `log_z0` | chosen | rejected | level | gap | prompt term at the end | pair accuracy | reward | KL | gold |\n|" + "---|" * 12)
    for t in found:
        level, gap = (t["chosen_log_ratio"] + t["rejected_log_ratio"]) / 2, t["chosen_log_ratio"] - t["rejected_log_ratio"]
        drift = [row["dro/prompt_logratio"] for row in t["metrics"] if "dro/prompt_logratio" in row][-10:]
        print(f"| {t['term']} | {t['beta']:g} | {t['z']:g} | {number(t['chosen_log_ratio'])} | {number(t['rejected_log_ratio'])} | {number(level)} | {number(gap)} | "
              f"{number(sum(drift) / len(drift), 1) if drift else ''} | {number(t['pair_accuracy'], 3)} | {number(t['reward'])} | {number(t['kl'], 1)} | {number(t['gold'])} |")
    print("\n| prompt term | β | level per nat of `log_z0` | R² |\n|---|---|---|---|")
    for term in ("full", "off"):
        for beta in COLOURS:
            points = [(t["z"], (t["chosen_log_ratio"] + t["rejected_log_ratio"]) / 2) for t in found if t["term"] == term and t["beta"] == beta]
            if len(points) > 2:
                slope, r2 = fit(points)
                print(f"| {term} | {beta:g} | {number(slope)} | {number(r2, 3)} |")


def chart(left, top, title, lines, x_title):
    """The SVG elements of some lines: (colour, dashed, points)."""
    points = [p for _, _, line in lines for p in line]
    (x0, x1), (y0, y1) = ((min(p[i] for p in points), max(p[i] for p in points)) for i in (0, 1))
    y0, y1 = y0 - 0.06 * (y1 - y0 or 1), y1 + 0.06 * (y1 - y0 or 1)
    x = lambda value: left + WIDTH * (0.03 + 0.94 * (value - x0) / (x1 - x0 or 1))  # noqa: E731
    y = lambda value: top + HEIGHT * (y1 - value) / (y1 - y0)  # noqa: E731
    step = next(s for s in (0.2, 0.5, 1, 2, 5, 10, 20) if (y1 - y0) / s <= 7)
    out = [f'<text x="{left}" y="{top - 8}" font-size="12">{title}</text>', f'<rect x="{left}" y="{top}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#c9ced4"/>']
    tick = step * (y0 // step + 1)
    while tick <= y1:
        out.append(f'<line x1="{left}" x2="{left + WIDTH}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="#e6e9ec"/>')
        out.append(f'<text x="{left - 6}" y="{y(tick) + 4:.1f}" text-anchor="end" font-size="11">{number(tick, 1 if step < 1 else 0)}</text>')
        tick += step
    for value in sorted({p[0] for p in points}) if len({p[0] for p in points}) <= 6 else range(0, int(x1) + 1, 20):
        out.append(f'<text x="{x(value):.1f}" y="{top + HEIGHT + 14}" text-anchor="middle" font-size="11">{value:g}</text>')
    out.append(f'<text x="{left + WIDTH / 2}" y="{top + HEIGHT + 28}" text-anchor="middle" font-size="11">{x_title}</text>')
    for colour, dashed, line in lines:
        dash = ' stroke-dasharray="5 3"' if dashed else ""
        out.append(f'<polyline points="{" ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in line)}" fill="none" stroke="{colour}" stroke-width="1.6"{dash}/>')
        out += [f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="2.6" fill="{colour}"/>' for a, b in line if len(line) <= 6]
    return out


def smooth(rows, key, beta, width=5):
    """A training metric times beta over the steps, as means of a few steps."""
    values = [(row["step"], beta * row[key]) for row in rows if key in row]
    return [(values[i][0], sum(v for _, v in values[i:i + width]) / width) for i in range(0, len(values) - width + 1, width)]


def picture(found, output):
    body = []
    for column, (term, name) in enumerate((("full", "the paper's prompt term"), ("off", "no prompt term"))):
        mine, left = [t for t in found if t["term"] == term], LEFT + column * (WIDTH + GAP)
        body.append(f'<text x="{left}" y="26" font-size="15" font-weight="600">{name}</text>')
        beta, z = SHOWN
        curves = next(t for t in mine if (t["beta"], t["z"]) == SHOWN)
        lines = [("#0072b2", False, smooth(curves["metrics"], "logratios/chosen", beta)), ("#d55e00", True, smooth(curves["metrics"], "logratios/rejected", beta))]
        body += chart(left, TOP, f"(a) chosen and rejected (dashed) at β {beta:g}, log_z0 {z:g}", lines, "step")
        for row, (title, value) in enumerate([("(b) chosen reward at the end", lambda t: t["beta"] * t["chosen_log_ratio"]),
                                              ("(c) gap of the rewards at the end", lambda t: t["beta"] * (t["chosen_log_ratio"] - t["rejected_log_ratio"])),
                                              ("(d) reward of samples on held-out prompts", lambda t: t["reward"])], start=1):
            lines = [(colour, False, [(t["z"], value(t)) for t in sorted(mine, key=lambda t: t["z"]) if t["beta"] == beta]) for beta, colour in COLOURS.items()]
            body += chart(left, TOP + row * ROW, title, [line for line in lines if line[2]], "log_z0, nats")
    bottom = TOP + 4 * ROW - 14
    for i, (beta, colour) in enumerate(COLOURS.items()):
        body.append(f'<text x="{LEFT + 90 * i}" y="{bottom}" font-size="12" fill="{colour}">β {beta:g}</text>')
    width, height = LEFT + 2 * WIDTH + GAP + 20, bottom + 12
    head = (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'font-family="system-ui, sans-serif" font-size="13" fill="#24292f">\n<rect width="{width}" height="{height}" fill="#ffffff"/>\n')
    output.write_text(head + "\n".join(body) + "\n</svg>\n", encoding="utf-8")


def main(arguments):
    if len(arguments) not in (1, 2):
        sys.exit(__doc__)
    found = sorted(trials(Path(arguments[0])), key=lambda t: (t["term"], t["beta"], t["z"]))
    table(found)
    if len(arguments) == 2:
        picture(found, Path(arguments[1]))


if __name__ == "__main__":
    main(sys.argv[1:])
