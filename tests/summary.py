#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Count the single test cases of a `meson test` run.

    tests/summary.py TESTLOG...      (a build folder's meson-logs/testlog.json)

meson counts executables; each of ours holds many cases. A C test reports its cases as cmocka
XML (run with CMOCKA_MESSAGE_OUTPUT=XML) and prints `skipped: REASON` for each that it skips, a
Python one as the lines of run_unittest.py. An
executable that crashed, timed out, reported no case or fewer than it said is a failed case of
its own, whatever it reported before. Prints each skip and failure with its reason and, last
and alone on its line, `N passed, N failed, N skipped`.
"""

import dataclasses
import html
import json
import re
import sys

SUITE = re.compile(r'<testsuite name="([^"]*)"[^>]* tests="(\d+)"[^>]*>(.*?)</testsuite>', re.S)
XML_CASE = re.compile(r'<testcase name="([^"]*)" time="([\d.]+)" *>(.*?)</testcase>', re.S)
CDATA = re.compile(r"<!\[CDATA\[(.*?)\]\]>", re.S)
XML_NOISE = re.compile(r"<\?xml.*?\?>|</?testsuites>|<testsuite .*?</testsuite>", re.S)
LINE_CASE = re.compile(r"^case (passed|failed|skipped) ([\d.]+) (\S+) ?(.*)$", re.M)
TAIL_LINES = 40


@dataclasses.dataclass
class Case:
    outcome: str  # passed, failed, skipped
    name: str
    reason: str = ""
    output: str = ""  # of the whole executable, for the first failure in it


def cmocka_cases(test, stdout):
    for group, declared, body in SUITE.findall(stdout):
        cases = XML_CASE.findall(body)
        for name, _, inside in cases:
            outcome = "passed"
            if "<failure" in inside or "<error" in inside:
                outcome = "failed"
            elif "<skipped" in inside:
                outcome = "skipped"
            message = CDATA.search(inside)
            reason = message[1].strip() if message else ""
            yield Case(outcome, f"{test}: {html.unescape(name)}", reason)
        if len(cases) != int(declared):
            yield Case("failed", f"{test}: {group}", f"{len(cases)} of {declared} cases reported")


def cases_of(entry):
    """The cases of one entry of testlog.json."""
    test = entry["name"].split(" / ")[-1]
    stdout, stderr = entry.get("stdout") or "", entry.get("stderr") or ""
    cases = list(cmocka_cases(test, stdout))
    cases += [Case(o, f"{test}: {n}", r) for o, _, n, r in LINE_CASE.findall(stdout)]

    failed = any(c.outcome == "failed" for c in cases)
    if entry["result"] != "OK" and not failed:
        # 77 and 99 mean "skip" and "error" to meson; our tests do not speak that way.
        status = f"exit status {entry['returncode']}"
        cases.append(Case("failed", test, f"ended as {entry['result']}, {status}"))
    elif not cases:
        cases.append(Case("failed", test, "reported no test case"))

    said = XML_NOISE.sub("", LINE_CASE.sub("", stdout)) + stderr
    tail = "\n".join([line for line in said.splitlines() if line.strip()][-TAIL_LINES:])
    for case in cases:
        if case.outcome == "failed":
            case.output = tail
            break
    reasons = re.findall(r"^skipped: (.*)$", stdout, re.M)  # in the order of the cases
    for case in cases:
        if case.outcome == "skipped" and not case.reason:
            case.reason = reasons.pop(0) if reasons else "no reason given"
    return cases


def read_testlog(path):
    with open(path) as log:
        return [case for line in log if line.strip() for case in cases_of(json.loads(line))]


def count(cases):
    outcomes = [case.outcome for case in cases]
    return tuple(outcomes.count(outcome) for outcome in ("passed", "failed", "skipped"))


def closing_line(cases):
    return "{} passed, {} failed, {} skipped".format(*count(cases))


def print_details(cases, title=""):
    """Skips and failures, with reasons."""
    for case in cases:
        if case.outcome == "passed":
            continue
        print(f"{case.outcome.upper()} {title}{case.name}: {case.reason}")
        for line in case.output.splitlines():
            print(f"    {line}")


def main():
    if len(sys.argv) < 2 or "--help" in sys.argv:
        print(__doc__.strip())
        return 2
    cases = [case for path in sys.argv[1:] for case in read_testlog(path)]
    print_details(cases)
    print(closing_line(cases))
    return 1 if count(cases)[1] or not cases else 0


if __name__ == "__main__":
    sys.exit(main())
