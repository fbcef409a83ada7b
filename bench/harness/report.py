# SPDX-License-Identifier: Apache-2.0
"""From windows to a page: medians, ratios by kind of window, and what was not observed."""

import datetime
import json

from harness import page
from harness.measure import Window, ratios, spread

KINDS = ("near", "far")


def cycles(window):
    return window.cycles


def of_kind(windows, kind):
    return [w for w in windows if isinstance(w, Window) and w.kind == kind]


def spread_of(windows, figure):
    values = [figure(w) for w in windows if figure(w) is not None]
    return spread(values) if values else None


def groups_of(results, figure, kind):
    """For page.bars(): each load with the spread of each back end."""
    groups = []
    for load, by_name in results.items():
        values = {name: s for name, windows in by_name.items()
                  if (s := spread_of(of_kind(windows, kind), figure))}
        if values:
            groups.append((load, values))
    return groups


def ratio_rows(results, figure):
    """[load, kind, peer, pairs, median, low, high] of ours over each peer."""
    rows = []
    for load, by_name in results.items():
        names = list(by_name)
        for peer in names[1:]:
            for kind in KINDS:
                found = ratios(by_name[names[0]], by_name[peer], figure, kind)
                if found:
                    rows.append([load, kind, peer, found.n, f"{found.median:.2f}",
                                 f"{found.low:.2f}", f"{found.high:.2f}"])
    return rows


RATIO_HEAD = ["load", "window", "ours over", "pairs", "median", "least", "most"]


def missing_of(results):
    """What a back end answered instead of figures, once each."""
    texts = {}
    for load, by_name in results.items():
        for name, windows in by_name.items():
            for w in windows:
                if isinstance(w, str):
                    texts.setdefault((name, w), []).append(load)
    return [f"{name}: {text} ({', '.join(dict.fromkeys(loads))})"
            for (name, text), loads in texts.items()]


def theme_section(theme, results):
    names = list(dict.fromkeys(name for by_name in results.values() for name in by_name))
    latency = theme.key.endswith("latency")
    figure = (lambda w: w.latency["p50"]) if latency else cycles
    what = "microseconds, half of them are faster" if latency else f"busy cycles a {theme.unit}"
    parts = [page.paragraph(theme.text, "soft"), page.legend(names)]
    for kind in KINDS:
        groups = groups_of(results, figure, kind)
        parts.append(page.paragraph(f"{what}, {kind} windows" if groups
                                    else f"{kind} windows: not observed"))
        if groups:
            parts.append(page.bars(groups, names))
    rows = ratio_rows(results, figure)
    if rows:
        parts.append(page.table(RATIO_HEAD, rows))
    parts += [page.paragraph(text, "soft") for text in missing_of(results)]
    return page.section(theme.title, *parts)


def curve_sections(growth, latency):
    parts = []
    if growth:
        parts.append(page.section(
            "More guests", page.paragraph("One flow between each two guests, 16 frames of 64 bytes "
                                          "on their way in each, one worker.", "soft"),
            page.lines({name: [(n, w.rate) for n, w in points] for name, points in growth.items()},
                       "guests", "frames/s"),
            page.lines({name: [(n, w.cycles) for n, w in points if w.cycles]
                        for name, points in growth.items()}, "guests", "busy cycles a frame")))
    for key, series in latency.items():
        parts.append(page.section(
            f"Latency against load: {key}",
            page.paragraph("99 of 100 are faster than this, at a fixed rate.", "soft"),
            page.lines({name: [(rate, w.latency["p99"]) for rate, w in points]
                        for name, points in series.items()}, "a second", "p99, us")))
    return parts


def how_section(machine, n_pairs, command):
    env = machine.environment
    rows = [["processor", env["processor"]], ["processors", env["processors"]],
            ["kernel", env["kernel"]], ["governor", env["governor"] or "none"],
            ["clock", f"{env['clock']}, {env['ticks_per_second'] / 1e9:.3f} GHz"],
            ["huge pages of 2 MiB", env["huge_pages"]],
            ["worker and load", f"processors {machine.server_cpu} and {machine.load_cpu}"],
            ["pairs of processes", n_pairs], ["command", command]]
    return page.section(
        "How", page.table(["", ""], rows),
        page.paragraph("Back ends take turns, each time as a new process, under the same load from "
                       "the other processor. Busy cycles are ticks of the time-stamp counter in "
                       "turns that found work, by each back end's own books, or the time its "
                       "threads ran if it has none. A window is near or far by how long a cache "
                       "line takes between the two processors before and after it; windows in "
                       "which that changed count nowhere. Ratios are taken within a pair.", "soft"))


def write_page(path, machine, themes, results, growth, latency, n_pairs, command):
    today = datetime.date.today().strftime("%-d %B %Y")
    sections = [theme_section(theme, results[theme.key]) for theme in themes
                if results.get(theme.key)]
    sections += curve_sections(growth, latency)
    sections.append(how_section(machine, n_pairs, command))
    path.write_text(page.document("sluice and its peers",
                                  f"What a request and a frame cost, measured on {today}. Shorter "
                                  "bars are better; the thin line goes from the least to the most.",
                                  sections), encoding="utf-8")


def as_json(machine, results):
    plain = {key: {load: {name: [w.__dict__ if isinstance(w, Window) else w for w in windows]
                          for name, windows in by_name.items()}
                   for load, by_name in loads.items()}
             for key, loads in results.items()}
    return json.dumps({"environment": machine.environment, "results": plain}, indent=1)


def print_ratios(themes, results):
    for theme in themes:
        figure = (lambda w: w.latency["p50"]) if theme.key.endswith("latency") else cycles
        rows = ratio_rows(results.get(theme.key, {}), figure)
        if rows:
            print(f"\n{theme.title}: {'p50' if theme.key.endswith('latency') else 'busy cycles'}")
            for row in [RATIO_HEAD, *rows]:
                print(f"  {row[0]:24}{row[1]:8}{row[2]:22}{row[3]:>6}{row[4]:>9}{row[5]:>9}"
                      f"{row[6]:>9}")
