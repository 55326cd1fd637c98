# Draws the way of one traced interrupt as SVG. Imported by trace.
# SPDX-License-Identifier: GPL-2.0-only
"""Tracks and slices of perfetto.py, cut to the time of one interrupt, and its steps with numbers, which are told below.

The interrupt is the first of those with the most kinds of steps.
"""
from xml.sax.saxutils import escape

import perfetto

WIDTH, LEFT, ROW, LINE = 960, 150, 30, 17
COLOURS = {"guest": "#7fb77e", "host": "#d9d9d9", "on": "#a5c8e4", "vector": "#f2c078"}


def chosen(ways):
    """The number of the interrupt that shows most."""
    kinds = [len({e.name for e in way}) for *_, way in ways]
    return kinds.index(max(kinds)) + 1


def text(x, y, what, more=""):
    """A line of text."""
    return f'<text x="{x:.1f}" y="{y:.1f}"{more}>{escape(what)}</text>'


def write(path, events, ways):
    """The picture, to a file."""
    number = chosen(ways)
    vcpu, vector, way = ways[number - 1]
    trace, names = perfetto.record(events, ways)
    names = {(pid, tid): f"{name}, in service" if pid == perfetto.SERVICE else name for (pid, tid), name in names.items()}
    steps = [r for r in trace.out if r["ph"] in "stf" and r.get("id") == number]
    told = {(r["pid"], r["tid"], r["ts"]): r["name"] for r in trace.out
            if r["ph"] == "X" and r.get("args", {}).get("interrupt") == number}
    first, last = steps[0]["ts"], steps[-1]["ts"]
    margin = max((last - first) * 0.06, 1)
    begin, end = first - margin, last + margin

    def x(ts):
        return LEFT + (min(max(ts, begin), end) - begin) / (end - begin) * (WIDTH - LEFT - 10)

    # All CPUs, but of sources and vCPUs only this interrupt's.
    own = {(r["pid"], r["tid"]) for r in steps} | {(perfetto.VCPUS, vcpu), (perfetto.SERVICE, vcpu)}
    seen = [r for r in trace.out if r["ph"] == "X" and r["ts"] < end and r["ts"] + r["dur"] > begin
            and (r["pid"] == perfetto.CPUS or (r["pid"], r["tid"]) in own)]
    tracks = sorted({(r["pid"], r["tid"]) for r in seen}, key=lambda t: (t[0] != perfetto.SOURCES, t))
    top = {track: 30 + n * ROW for n, track in enumerate(tracks)}
    below = 30 + len(tracks) * ROW + 24
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {below + len(steps) * LINE + 4}" '
           'font-family="sans-serif" font-size="12">',
           "<!-- SPDX-License-Identifier: GPL-2.0-only -->", "<!-- Drawn by savic trace, the option picture. -->",
           '<rect width="100%" height="100%" fill="white"/>',
           text(10, 18, f"{'NMI' if vector == 'NMI' else f'vector {vector}'} for vCPU {vcpu}", ' font-weight="bold"')]
    for track in tracks:
        out.append(text(10, top[track] + 18, names[track]))
    for r in seen:
        y, left, right = top[r["pid"], r["tid"]], x(r["ts"]), x(r["ts"] + r["dur"])
        if r["dur"] <= perfetto.STEP:
            continue
        colour = COLOURS[r["name"].split(":")[0].split()[0]]
        out.append(f'<rect x="{left:.1f}" y="{y + 3}" width="{max(right - left, 0.5):.1f}" height="{ROW - 8}" fill="{colour}" '
                   f'stroke="#888" stroke-width="0.5"><title>{escape(r["name"])}</title></rect>')
        if right - left > 6.5 * len(r["name"]):
            out.append(text(left + 4, y + 18, r["name"]))
    points = [(x(r["ts"]), top[r["pid"], r["tid"]] + ROW / 2) for r in steps]
    out.append('<polyline fill="none" stroke="#b03030" points="' + " ".join(f"{a:.1f},{b:.1f}" for a, b in points) + '"/>')
    taken = []
    for n, ((a, b), r) in enumerate(zip(points, steps), 1):
        # Those at nearly the same time are drawn above each other.
        b -= 9 * sum(abs(a - c) < 12 and b == d for c, d in taken)
        taken.append((a, points[n - 1][1]))
        out.append(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="6" fill="#b03030"/>')
        out.append(text(a, b + 3, str(n), ' font-size="8" fill="white" text-anchor="middle"'))
        out.append(text(10, below + (n - 1) * LINE, f"{n}"))
        out.append(text(34, below + (n - 1) * LINE, f"{r['ts'] - first:+.1f} µs"))
        out.append(text(LEFT - 20, below + (n - 1) * LINE, f"{names[r['pid'], r['tid']]}: {told[r['pid'], r['tid'], r['ts']]}"))
    out.append("</svg>")
    with open(path, "w", encoding="utf-8") as f:
        f.write("\n".join(out) + "\n")
