#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A failure must never be counted as anything else."""

import unittest

import summary

GOOD = '<testcase name="good" time="0.000" >\n</testcase>'
BAD = '<testcase name="bad" time="0.000" >\n<failure><![CDATA[1 != 2\nx.c:9]]></failure>\n</testcase>'
SETUP = '<testcase name="setup" time="0.000" >\n<error><![CDATA[no]]></error>\n</testcase>'
SKIP = '<testcase name="skip" time="0.000" >\n<skipped/>\n</testcase>'


def xml(*cases, declared=None):
    n = len(cases) if declared is None else declared
    return (
        '<?xml version="1.0" encoding="UTF-8" ?>\n<testsuites>\n'
        f'<testsuite name="t" time="0.0" tests="{n}" failures="0" errors="0" skipped="0" >\n'
        + "\n".join(cases)
        + "\n</testsuite>\n</testsuites>\n"
    )


# What ran: (standard output, meson's result, exit status) -> (passed, failed, skipped)
TABLE = [
    ("all pass", xml(GOOD, GOOD), "OK", 0, (2, 0, 0)),
    ("one fails", xml(GOOD, BAD), "FAIL", 1, (1, 1, 0)),
    ("set-up fails", xml(SETUP, GOOD), "FAIL", 1, (1, 1, 0)),
    ("one is skipped", "noise\nskipped: no KVM\nother noise\n" + xml(SKIP), "OK", 0, (0, 0, 1)),
    ("two groups", xml(GOOD) + xml(GOOD, SKIP), "OK", 0, (2, 0, 1)),
    ("dies before the report", "", "FAIL", 134, (0, 1, 0)),
    ("dies after a report", xml(GOOD, GOOD), "FAIL", -11, (2, 1, 0)),
    ("a sanitizer objects at exit", xml(GOOD), "FAIL", 1, (1, 1, 0)),
    ("hangs", xml(GOOD), "TIMEOUT", -9, (1, 1, 0)),
    ("reports nothing", "hello\n", "OK", 0, (0, 1, 0)),
    ("reports too few", xml(GOOD, declared=2), "OK", 0, (1, 1, 0)),
    ("77 failures look like a skip to meson", xml(BAD), "SKIP", 77, (0, 1, 0)),
    ("skips as meson knows it", "", "SKIP", 77, (0, 1, 0)),
    ("python passes", "case passed 0.01 A.b\ncase skipped 0.00 A.c no KVM\n", "OK", 0, (1, 0, 1)),
    ("python fails", "case passed 0.01 A.b\ncase failed 0.00 A.c boom\n", "FAIL", 1, (1, 1, 0)),
    ("python dies half way", "case passed 0.01 A.b\n", "FAIL", 1, (1, 1, 0)),
]


class Counting(unittest.TestCase):
    def test_table(self):
        for what, stdout, result, status, expected in TABLE:
            with self.subTest(what):
                entry = {"name": "s / t", "stdout": stdout, "result": result, "returncode": status}
                self.assertEqual(summary.count(summary.cases_of(entry)), expected)

    def test_a_skip_has_a_reason(self):
        entry = {"name": "t", "stdout": "noise\nskipped: no KVM\nother noise\n" + xml(SKIP), "result": "OK", "returncode": 0}
        self.assertEqual(summary.cases_of(entry)[0].reason, "no KVM")

    def test_a_failure_has_its_message_and_the_output(self):
        entry = {
            "name": "t", "stdout": "hello\n" + xml(BAD), "stderr": "==1==ERROR: AddressSanitizer\n",
            "result": "FAIL", "returncode": 1,
        }
        case = summary.cases_of(entry)[0]
        self.assertEqual(case.reason, "1 != 2\nx.c:9")
        self.assertEqual(case.output, "hello\n==1==ERROR: AddressSanitizer")

    def test_the_closing_line(self):
        cases = [summary.Case("passed", "a"), summary.Case("failed", "b"), summary.Case("passed", "c")]
        self.assertEqual(summary.closing_line(cases), "2 passed, 1 failed, 0 skipped")


if __name__ == "__main__":
    unittest.main()
