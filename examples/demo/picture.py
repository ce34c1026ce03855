"""Draws the picture of the README from a run of the demo: the log-ratio of every training response after training, over its reward.

usage: python3 examples/demo/picture.py [RUN] [OUTPUT]        RUN: runs/demo by default; OUTPUT: docs/figures/demo.svg
"""

import json
import pathlib
import sys

WIDTH, HEIGHT, LEFT, TOP, GAP = 380, 300, 62, 58, 48
CHOSEN, REJECTED, INK, FAINT = "#0072b2", "#d55e00", "#24292f", "#c9ced4"


def last_epoch(run):
    """Returns reward, log-ratio, target and side of each response, as the last pass over the data found them."""
    lines = [json.loads(line) for line in open(run / "responses.jsonl", encoding="utf-8")]
    found = {}
    for line in lines:
        if line["data"] == "train":
            for i, example in enumerate(line["example"]):
                target = line["target"][i] if "target" in line else None
                point = (line["reward"][i], line["log_ratio"][i], target, line["chosen"][i])
                found[example, line["response"][i]] = point
    return list(found.values())


def panel(points, left, title, line, lowest, highest, rewards):
    """Returns the SVG elements of one method."""
    x = lambda reward: left + WIDTH * (reward - rewards[0]) / (rewards[1] - rewards[0])
    y = lambda nats: TOP + HEIGHT * (highest - nats) / (highest - lowest)
    out = [f'<text x="{left}" y="{TOP - 14}" font-weight="600">{title}</text>']
    for nats in range(int(lowest), int(highest) + 1, 10):
        weight = 1.2 if nats == 0 else 0.6
        out.append(f'<line x1="{left}" x2="{left + WIDTH}" y1="{y(nats):.1f}" y2="{y(nats):.1f}" stroke="{FAINT}" stroke-width="{weight}"/>')
        out.append(f'<text x="{left - 8}" y="{y(nats) + 4:.1f}" text-anchor="end" font-size="12">{str(nats).replace("-", "−")}</text>')
    for reward in range(2 * int(rewards[0] / 2), int(rewards[1]) + 1, 2):
        out.append(f'<text x="{x(reward):.1f}" y="{TOP + HEIGHT + 18}" text-anchor="middle" font-size="12">{str(reward).replace("-", "−")}</text>')
    for reward, nats, _, chosen in points:
        colour = CHOSEN if chosen else REJECTED
        out.append(f'<circle cx="{x(reward):.1f}" cy="{y(max(nats, lowest)):.1f}" r="2.1" fill="{colour}" fill-opacity="0.5"/>')
    if line:
        slope, offset = line
        ends = [(reward, slope * reward + offset) for reward in rewards]
        (x1, y1), (x2, y2) = [(x(reward), y(nats)) for reward, nats in ends]
        out.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{INK}" stroke-width="1.4" stroke-dasharray="5 4"/>')
        out.append(f'<text x="{x1 + 8:.1f}" y="{y1 + 30:.1f}" font-size="12">target: r/β − log Z</text>')
    out.append(f'<text x="{left + WIDTH / 2}" y="{TOP + HEIGHT + 38}" text-anchor="middle" font-size="13">reward of the response</text>')
    return out


def main(run, output):
    dro, dpo = last_epoch(run / "dro-0.5"), last_epoch(run / "dpo-1")
    # The targets are a straight line over the rewards: take it from two responses.
    (r1, _, t1, _), (r2, _, t2, _) = min(dro), max(dro)
    slope = (t2 - t1) / (r2 - r1)
    every = [point[1] for point in dro + dpo] + [t1, t2]
    rewards = [min(p[0] for p in dro) - 0.3, max(p[0] for p in dro) + 0.3]
    lowest, highest = 10 * (min(every) // 10), 10 * -(-max(every) // 10)
    second = LEFT + WIDTH + GAP
    width, height = second + WIDTH + 20, TOP + HEIGHT + 52
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="system-ui, sans-serif" font-size="15" fill="{INK}" role="img">',
        "<title>Log-ratios of the demo's training responses after DRO and after DPO</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<circle cx="{LEFT + 6}" cy="18" r="5" fill="{CHOSEN}"/><text x="{LEFT + 16}" y="23" font-size="13">best response of a prompt</text>',
        f'<circle cx="{LEFT + 206}" cy="18" r="5" fill="{REJECTED}"/><text x="{LEFT + 216}" y="23" font-size="13">other responses</text>',
        f'<text transform="translate(16 {TOP + HEIGHT / 2}) rotate(-90)" text-anchor="middle" font-size="13">log-ratio to the SFT model, nats</text>',
        *panel(dro, LEFT, "DRO, β 0.5: each response goes to its target", (slope, t1 - slope * r1), lowest, highest, rewards),
        *panel(dpo, second, "DPO, β 1: only differences count", None, lowest, highest, rewards),
        "</svg>",
    ]
    output.write_text("\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    given = [pathlib.Path(path) for path in sys.argv[1:]]
    root = pathlib.Path(__file__).parent.parent.parent
    main(given[0] if given else pathlib.Path("runs/demo"), given[1] if len(given) > 1 else root / "docs/figures/demo.svg")
