# SPDX-License-Identifier: Apache-2.0
"""tools/bench: how windows become ratios, and that a run ends in a page that is whole."""

import html.parser
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

SOURCE = pathlib.Path(os.environ["SLUICE_SOURCE"])
BUILD = pathlib.Path(os.environ["SLUICE_BUILD"])
sys.path.insert(0, str(SOURCE / "bench"))

from harness import measure, page, report  # noqa: E402


def window(cycles, kind="near"):
    return measure.Window(1e6, cycles, cycles, 0.5, {"p50": cycles}, kind, [])


class Ratios(unittest.TestCase):
    def ratio(self, ours, theirs, kind="near"):
        return measure.ratios(ours, theirs, lambda w: w.cycles, kind)

    def test_medians_are_of_pairs(self):
        found = self.ratio([window(10), window(30), window(20)],
                           [window(20), window(20), window(80)])
        self.assertEqual((found.n, found.median, found.low, found.high), (3, 0.5, 0.25, 1.5))

    def test_windows_of_other_kinds_count_nowhere(self):
        ours = [window(10), window(10, "far"), window(10, "moved"), "does not offer it"]
        theirs = [window(20), window(99), window(20, "moved"), window(20)]
        self.assertEqual(self.ratio(ours, theirs).n, 1)
        self.assertIsNone(self.ratio(ours, theirs, "far"))

    def test_a_peer_without_books_has_no_ratio(self):
        self.assertIsNone(self.ratio([window(10)], [window(None)]))

    def test_the_kind_needs_both_trips(self):
        trips = lambda before, after: {"round_trip_ns": {"before": before, "after": after}}
        self.assertEqual(measure.kind_of(trips(60, 100)), "near")
        self.assertEqual(measure.kind_of(trips(300, 500)), "far")
        self.assertEqual(measure.kind_of(trips(60, 500)), "moved")


class Whole(html.parser.HTMLParser):
    """Fails unless each tag that was opened is closed."""

    def __init__(self):
        super().__init__()
        self.open, self.n_pictures = [], 0

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_starttag(self, tag, attrs):
        self.n_pictures += tag == "svg"
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()


def check_page(text):
    parser = Whole()
    parser.feed(text)
    assert not parser.open, f"never closed: {parser.open}"
    return parser


class Page(unittest.TestCase):
    def test_pictures_are_whole(self):
        spread = measure.spread([100, 200, 400])
        text = page.bars([("a < b", {"x": spread, "y": spread})], ["x", "y"])
        text += page.lines({"x": [(2, 10), (256, 40)]}, "guests", "rate")
        text += page.lines({}, "guests", "rate")
        self.assertEqual(check_page(text).n_pictures, 2)
        self.assertIn("a &lt; b", text)
        self.assertIn("not observed", text)

    def test_refusals_are_told_once(self):
        results = {"one": {"ours": [window(1)], "peer": ["no packed rings", "no packed rings"]},
                   "two": {"ours": [window(1)], "peer": ["no packed rings"]}}
        self.assertEqual(report.missing_of(results), ["peer: no packed rings (one, two)"])


class Run(unittest.TestCase):
    def test_a_short_run_ends_in_a_page(self):
        with tempfile.TemporaryDirectory() as folder:
            out = pathlib.Path(folder) / "page.html"
            done = subprocess.run(
                [SOURCE / "tools/bench", "--only", "disk-null", "--pairs", "2", "--seconds", "0.05",
                 "--build", BUILD, "--out", out], capture_output=True, text=True, check=False)
            self.assertEqual(done.returncode, 0, done.stderr)
            text = out.read_text()
            self.assertIn("A disk that stores nothing", text)
            self.assertIn("does not offer packed rings", text)
            self.assertIn("sluice", text)
            check_page(text)
            windows = json.loads(out.with_suffix(".json").read_text())["results"]["disk-null"]
            ours = windows["split, depth 32"]["sluice"]
            self.assertEqual(len(ours), 2)
            self.assertGreater(ours[0]["cycles"], 1)

    def test_a_wrong_theme_names_the_choices(self):
        done = subprocess.run([SOURCE / "tools/bench", "--only", "tape", "--build", BUILD],
                              capture_output=True, text=True, check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("disk-null, disk-ram, disk-file, net, net-latency, growth, steps",
                      done.stderr)


if __name__ == "__main__":
    unittest.main()
