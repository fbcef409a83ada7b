#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The documents name only what exists: files, headings, functions, tests, options, keys."""

import functools
import os
import pathlib
import re
import shlex
import subprocess
import unittest

SOURCE = pathlib.Path(os.environ.get("SLUICE_SOURCE", pathlib.Path(__file__).parents[1]))
BUILD = pathlib.Path(os.environ.get("SLUICE_BUILD", SOURCE / "build"))
DOCUMENTS = [SOURCE / "README.md", *sorted((SOURCE / "docs").glob("*.md"))]
CODE_FOLDERS = ("dataplane", "pollers", "devices", "bench", "tools")
PROGRAMS = {"sluiced", "sluicectl", "sluice-bench", "check", "quickstart", "install-packages"}
DEVICE_LINE = re.compile(r"^(?:disk|switch|port|rng) \S+ .*=.*$")
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")


def prose(text):
    """@text without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)


def code_lines(text):
    """Lines of fenced and of indented blocks; a backslash joins the next."""
    fenced = re.findall(r"^```.*?\n(.*?)^```$", text, flags=re.M | re.S)
    indented = re.findall(r"^(?: {4}.*\n)+", prose(text), flags=re.M)
    blocks = re.sub(r"\\\n\s*", " ", "\n".join(fenced + indented))
    return [line.strip().removeprefix("$ ") for line in blocks.splitlines() if line.strip()]


def anchors(text):
    titles = re.findall(r"^#+ (.*)$", prose(text), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@functools.cache
def help_of(program):
    folder = SOURCE if (SOURCE / "tools" / program).is_file() else BUILD
    done = subprocess.run([folder / "tools" / program, "--help"], capture_output=True, text=True, timeout=20)
    return done.stdout + done.stderr


@functools.cache
def code():
    paths = (p for f in CODE_FOLDERS for p in (SOURCE / f).rglob("*") if p.suffix in (".c", ".h"))
    return "\n".join(path.read_text() for path in paths)


def words_of(line):
    try:
        return shlex.split(line, comments=True)
    except ValueError:  # prose in a block: "don't"
        return []


def commands(text):
    """(program, its words) for each of our programs that a block calls."""
    for line in code_lines(text):
        for part in re.split(r"[|;]|&&", line) if "'" not in line else [line]:
            words = [w for w in words_of(part) if w != "sudo"]
            if words and words[0].split("/")[-1] in PROGRAMS and ("/" in words[0] or "sluice" in words[0]):
                yield words[0].split("/")[-1], words[1:]


class Links(unittest.TestCase):
    def test_each_link_leads_somewhere(self):
        n_links = 0
        for document in DOCUMENTS:
            for target in LINK.findall(prose(document.read_text())):
                if re.match(r"\w+:", target):
                    continue
                n_links += 1
                with self.subTest(document=document.name, target=target):
                    path, _, anchor = target.partition("#")
                    file = (document.parent / path).resolve() if path else document
                    self.assertTrue(file.exists())
                    if anchor:
                        self.assertIn(anchor, anchors(file.read_text()))
        self.assertGreater(n_links, 5)

    def test_each_path_in_code_marks_exists(self):
        """`dataplane/ring.h` and the like; build/… are made, NAME or * stand for something."""
        pattern = re.compile(r"`((?:dataplane|pollers|devices|bench|tools|tests|docs)/[\w./-]*)`")
        paths = {(d.name, p) for d in DOCUMENTS for p in pattern.findall(d.read_text())}
        lost = sorted(f"{d}: {p}" for d, p in paths if not (SOURCE / p).exists())
        self.assertEqual(lost, [])
        self.assertGreater(len(paths), 10)


class Commands(unittest.TestCase):
    def test_each_option_is_in_the_help(self):
        n_options = 0
        for document in DOCUMENTS:
            for program, words in commands(document.read_text()):
                for option in (w.split("=")[0] for w in words if w.startswith("--")):
                    n_options += 1
                    with self.subTest(document=document.name, program=program, option=option):
                        self.assertRegex(help_of(program), re.escape(option) + r"\b")
        self.assertGreater(n_options, 3)

    def test_each_control_command_is_in_the_help(self):
        n_commands = 0
        for document in DOCUMENTS:
            for program, words in commands(document.read_text()):
                if program == "sluicectl":
                    n_commands += 1
                    verb = next(w for i, w in enumerate(words) if w[0] != "-" and words[i - 1] != "--control")
                    with self.subTest(document=document.name, verb=verb):
                        self.assertRegex(help_of("sluicectl"), rf"\b{re.escape(verb)}\b")
        self.assertGreater(n_commands, 2)

    def test_each_device_line_has_known_keys(self):
        n_lines = 0
        for document in DOCUMENTS:
            lines = code_lines(document.read_text())
            lines += [w for _, words in commands(document.read_text()) for w in words]
            for line in filter(DEVICE_LINE.match, lines):
                n_lines += 1
                kind, _, *pairs = words_of(line)
                for pair in pairs:
                    with self.subTest(document=document.name, line=line, key=pair):
                        key = pair.strip("[]").split("=")[0]
                        self.assertRegex(help_of("sluiced"), rf"\b{re.escape(key)}\b")
        self.assertGreater(n_lines, 2)


class Tables(unittest.TestCase):
    """docs/spec.md and docs/hostile.md: the last two columns are functions and tests. docs/promises.md:
    the last one is tests."""

    def setUp(self):
        lines = (SOURCE / "docs/promises.md").read_text().splitlines()
        promises = [line.strip("|").split("|") for line in lines if re.match(r"\|[^-]", line)]
        self.promises = [row for row in promises if row[-1].strip() != "test"]
        self.assertGreater(len(self.promises), 20)
        self.rows = []
        for name in ("spec.md", "hostile.md"):
            rows = [line.strip("|").split("|") for line in (SOURCE / "docs" / name).read_text().splitlines()
                    if line.startswith("|") and "()`" in line]
            self.assertGreater(len(rows), 25)
            self.rows += [(row[0].strip(), row[1], row[-2], row[-1]) for row in rows]

    def test_each_function_exists(self):
        for section, _, functions, _ in self.rows:
            for function in re.findall(r"`(\w+)\(\)`", functions):
                with self.subTest(section=section, function=function):
                    self.assertTrue(re.search(rf"\b{function}\(", code()))

    def test_each_row_names_a_function_and_a_test(self):
        for row in self.rows:
            with self.subTest(row=row[0]):
                self.assertRegex(row[2], r"`\w+\(\)`")
                self.assertRegex(row[3], r"`test_\w+\.\w+: [^`]+`")

    def test_each_promise_names_a_test(self):
        for failure, *_, tests in self.promises:
            with self.subTest(failure=failure):
                self.assertRegex(tests, r"`test_\w+\.\w+: \w+`")

    def test_each_test_exists(self):
        """`test_ring.c: duplicate_head` is a word of tests/test_ring.c."""
        for section, tests in [(row[0], row[-1]) for row in self.rows + self.promises]:
            for file, name in re.findall(r"`(test_\w+\.\w+): ([^`]+)`", tests):
                with self.subTest(section=section, file=file, name=name):
                    paths = list((SOURCE / "tests").rglob(file))
                    self.assertEqual(len(paths), 1)
                    self.assertTrue(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", paths[0].read_text()))


class Design(unittest.TestCase):
    def test_the_fence_pairs_are_those_of_the_code(self):
        text = (SOURCE / "docs/design.md").read_text()
        table = text.split("| pair |")[1].split("\n\n")[0]
        listed = set(re.findall(r"^\| (\w+) \|", table, re.M))
        used = set(re.findall(r"\bpair:? (\w+)[):]", code()))
        self.assertEqual(listed, used)
        self.assertTrue(listed)

    def test_the_faults_are_those_of_the_code(self):
        text = (SOURCE / "docs/operate.md").read_text()
        section = text.split("| fault |")[1].split("\n\n")[0]
        names = re.findall(r'\[RING_\w+\] = "([\w-]+)"', (SOURCE / "dataplane/ring.c").read_text())
        self.assertEqual(set(re.findall(r"^\| `([\w-]+)`", section, re.M)), set(names) - {"none"})


if __name__ == "__main__":
    unittest.main()
