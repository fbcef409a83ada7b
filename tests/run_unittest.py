#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Run the unittest cases of one file and print one line for each, as soon as it ends.

    case <passed|failed|skipped> <seconds> <class>.<method> [reason]

tests/summary.py counts these lines, so that a file that dies or hangs half way still shows
what ran. The exit status is 0 if nothing failed and at least one case ran or was skipped.
"""

import importlib.util
import pathlib
import sys
import time
import traceback
import unittest


class LineResult(unittest.TestResult):
    def __init__(self):
        super().__init__()
        self.n_cases = 0
        self.n_failed = 0
        self.started = {}
        self.broken = set()

    def startTest(self, test):
        super().startTest(test)
        self.started[test.id()] = time.monotonic()

    def report(self, outcome, test, reason=""):
        seconds = time.monotonic() - self.started.get(test.id(), time.monotonic())
        name = ".".join(test.id().split(".")[-2:])
        self.n_cases += 1
        self.n_failed += outcome == "failed"
        print(f"case {outcome} {seconds:.2f} {name} {reason}".rstrip(), flush=True)

    def fail(self, test, error, text):
        print(text, flush=True)
        # A case with several failed subtests, or a failing tearDown, is one failed case.
        if test.id() not in self.broken:
            self.broken.add(test.id())
            self.report("failed", test, str(error[1]).split("\n")[0])

    def addSuccess(self, test):
        self.report("passed", test)

    def addFailure(self, test, error):
        super().addFailure(test, error)
        self.fail(test, error, self.failures[-1][1])

    def addError(self, test, error):
        super().addError(test, error)
        self.fail(test, error, self.errors[-1][1])

    def addSubTest(self, test, subtest, error):
        if error is not None:
            text = "".join(traceback.format_exception(*error))
            self.fail(test, error, f"{subtest.id()}\n{text}")

    def addSkip(self, test, reason):
        self.report("skipped", test, reason)

    def addExpectedFailure(self, test, error):
        self.report("failed", test, "marked as an expected failure: delete or mend it")

    def addUnexpectedSuccess(self, test):
        self.report("failed", test, "succeeded, though marked as an expected failure")


def main():
    path = pathlib.Path(sys.argv[1]).resolve()
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    result = LineResult()
    unittest.defaultTestLoader.loadTestsFromModule(module).run(result)
    return 0 if result.n_cases > 0 and result.n_failed == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
