# SPDX-License-Identifier: Apache-2.0
"""The report: one HTML page, its pictures in it as SVG, nothing loaded from elsewhere."""

import html
import math

COLOURS = ["#0b6e99", "#d9822b", "#7a5195", "#4c9f70", "#c23b4b", "#6b7280"]

STYLE = """
:root { --ink: #1c2330; --soft: #5b6575; --line: #dfe3ea; --paper: #fcfcfd; --good: #0b6e99 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ef; --soft: #9aa4b5; --line: #323a48; --paper: #161a21; --good: #56b6dd }
}
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper);
       max-width: 62rem; margin: 3rem auto; padding: 0 1.5rem }
h1 { font-size: 2rem; margin-bottom: .2rem } h2 { margin-top: 3rem; font-size: 1.35rem }
p.lead, .soft { color: var(--soft) }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1rem 0 }
th, td { padding: .3rem .8rem; border-bottom: 1px solid var(--line); text-align: right }
th:first-child, td:first-child { text-align: left } th { font-weight: 600 }
td.best { color: var(--good); font-weight: 600 } svg { max-width: 100%; height: auto }
svg text { fill: var(--ink); font: 12px system-ui, sans-serif }
svg .soft { fill: var(--soft) } svg line.grid { stroke: var(--line) }
.legend span { display: inline-block; margin-right: 1.2rem }
.legend i { display: inline-block; width: .8rem; height: .8rem; border-radius: 2px;
            margin-right: .35rem; vertical-align: -1px }
code { font-size: .9em }
"""


def number(value):
    if value is None:
        return "–"
    if value >= 1e6:
        return f"{value / 1e6:.2f} M"
    if value >= 10_000:
        return f"{value / 1e3:.1f} k"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def legend(names):
    items = (f'<span><i style="background:{COLOURS[i % len(COLOURS)]}"></i>{html.escape(name)}'
             "</span>" for i, name in enumerate(names))
    return f'<p class="legend">{"".join(items)}</p>'


def bars(groups, names):
    """Horizontal bars: for each group one of each name, with its smallest and largest value.

    @groups is [(label, {name: Spread})].
    """
    row, gap, left, width = 20, 16, 190, 620
    top = max((s.high for _, values in groups for s in values.values()), default=1)
    parts, y = [], 8
    for label, values in groups:
        shown = [name for name in names if name in values]
        middle = y + row * len(shown) / 2
        parts.append(f'<text x="{left - 12}" y="{middle + 4:.0f}" text-anchor="end">'
                     f"{html.escape(label)}</text>")
        for name in shown:
            s, colour = values[name], COLOURS[names.index(name) % len(COLOURS)]
            x = [left + value / top * width for value in (s.median, s.low, s.high)]
            line = y + (row - 4) / 2
            parts.append(f'<rect x="{left}" y="{y}" width="{x[0] - left:.1f}" height="{row - 4}" '
                         f'rx="2" fill="{colour}"/>'
                         f'<line x1="{x[1]:.1f}" x2="{x[2]:.1f}" y1="{line}" y2="{line}" '
                         'stroke="currentColor" opacity=".55"/>'
                         f'<text class="soft" x="{x[2] + 8:.1f}" y="{line + 4}">'
                         f"{number(s.median)}</text>")
            y += row
        y += gap
    return (f'<svg viewBox="0 0 {left + width + 90} {y}" width="{left + width + 90}" height="{y}" '
            f'role="img">{"".join(parts)}</svg>')


def lines(series, x_label, y_label):
    """Curves: @series is {name: [(x, y)]}; x in powers of two where it spans more than 16 times."""
    left, width, height = 70, 680, 300
    points = [point for curve in series.values() for point in curve]
    if not points:
        return '<p class="soft">not observed</p>'
    xs = sorted({x for x, _ in points})
    is_log = xs[0] > 0 and xs[-1] / xs[0] > 16
    scale = math.log2 if is_log else float
    low, high = scale(xs[0]), scale(xs[-1])
    top = max(y for _, y in points) * 1.08

    def place(x, y):
        part = (scale(x) - low) / (high - low) if high > low else 0.5
        return left + part * width, 10 + height - y / top * height

    parts = []
    for i in range(5):
        y = 10 + height - i / 4 * height
        parts.append(f'<line class="grid" x1="{left}" x2="{left + width}" y1="{y}" y2="{y}"/>'
                     f'<text class="soft" x="{left - 8}" y="{y + 4}" text-anchor="end">'
                     f"{number(top * i / 4)}</text>")
    for x in xs if len(xs) <= 10 else xs[::2]:
        parts.append(f'<text class="soft" x="{place(x, 0)[0]:.1f}" y="{height + 28}" '
                     f'text-anchor="middle">{number(x) if x >= 1000 else f"{x:g}"}</text>')
    for i, curve in enumerate(series.values()):
        colour = COLOURS[i % len(COLOURS)]
        where = [place(*point) for point in sorted(curve)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in where)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.4" fill="{colour}"/>' for x, y in where]
    parts.append(f'<text class="soft" x="{left + width / 2}" y="{height + 50}" '
                 f'text-anchor="middle">{html.escape(x_label)}</text>'
                 f'<text class="soft" x="4" y="8" dominant-baseline="hanging">'
                 f"{html.escape(y_label)}</text>")
    return (f'<svg viewBox="0 0 {left + width + 20} {height + 60}" width="{left + width + 20}" '
            f'height="{height + 60}" role="img">{"".join(parts)}</svg>' + legend(series))


def table(head, rows, best=None):
    """@best marks cells: a set of (row, column)."""
    def cell(r, c, text):
        mark = ' class="best"' if best and (r, c) in best else ""
        return f"<td{mark}>{html.escape(str(text))}</td>"

    body = "".join("<tr>" + "".join(cell(r, c, text) for c, text in enumerate(row)) + "</tr>"
                   for r, row in enumerate(rows))
    return ("<table><thead><tr>" + "".join(f"<th>{html.escape(h)}</th>" for h in head)
            + f"</tr></thead><tbody>{body}</tbody></table>")


def section(title, *parts):
    return f"<section><h2>{html.escape(title)}</h2>{''.join(parts)}</section>"


def paragraph(text, kind=""):
    return f'<p class="{kind}">{html.escape(text)}</p>'


def document(title, lead, sections):
    return (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}'
            '</title><meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<style>{STYLE}</style></head><body><h1>{html.escape(title)}</h1>"
            f'{paragraph(lead, "lead")}{"".join(sections)}</body></html>\n')
