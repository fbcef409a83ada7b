#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The shape of the tree: one module order (tests/order.txt), and which words may stand where."""

import os
import pathlib
import re
import unittest

SOURCE = pathlib.Path(os.environ.get("SLUICE_SOURCE", pathlib.Path(__file__).parents[1]))
LAYERS = ("dataplane", "pollers", "devices", "tools")  # what order.txt lists
SEE_ALL = ("bench", "tests")
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M)
LAYOUT_WORD = re.compile(r"(?<![a-z])(split|packed)(?![a-z])", re.I)
# Where a ring's layout may be spoken of, besides bench/ and tests/.
LAYOUT_FILES = re.compile(r"dataplane/(virtio\.h|ring[a-z_]*\.[ch]|inflight[a-z_]*\.[ch])")


def sources(*folders):
    """{path relative to the tree: text} of the C files in @folders."""
    return {
        str(path.relative_to(SOURCE)): path.read_text()
        for folder in folders
        for path in sorted((SOURCE / folder).rglob("*.[ch]"))
    }


def listed_modules():
    lines = (SOURCE / "tests/order.txt").read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def module_of(path, modules):
    """ring_split.c belongs to the longest listed name that its own starts with: ring."""
    stem = path.rsplit(".", 1)[0]
    fitting = [m for m in modules if stem == m or stem.startswith(m + "_")]
    return max(fitting, key=len, default=None)


def layer_of(path):
    return path.split("/")[0]


class TreeCase(unittest.TestCase):
    def assert_none(self, wrong, what):
        if wrong:
            self.fail(f"{what}: {len(wrong)}\n  " + "\n  ".join(wrong))


class Order(TreeCase):
    def setUp(self):
        self.modules = listed_modules()
        self.files = sources(*LAYERS)

    def test_each_module_is_listed_once_and_exists(self):
        self.assertEqual(len(self.modules), len(set(self.modules)))
        for module in self.modules:
            self.assertIn(layer_of(module), LAYERS)
            belonging = [p for p in self.files if module_of(p, self.modules) == module]
            self.assertTrue(belonging, f"{module} is in order.txt and has no file")

    def test_each_file_belongs_to_a_listed_module(self):
        lost = [p for p in self.files if module_of(p, self.modules) is None]
        self.assert_none(lost, "not in tests/order.txt")
        for layer in LAYERS:
            self.assertTrue([p for p in self.files if layer_of(p) == layer], f"{layer}/ is empty")

    def test_each_include_is_of_the_same_module_or_a_lower_one(self):
        rank = {module: i for i, module in enumerate(self.modules)}
        wrong, n_includes = [], 0
        for path, text in self.files.items():
            own = module_of(path, self.modules)
            for header in INCLUDE.findall(text):
                n_includes += 1
                other = module_of(header, self.modules)
                if layer_of(header) in SEE_ALL and layer_of(path) == "tools":
                    continue
                if other is None or rank[other] > rank.get(own, -1):
                    wrong.append(f"{path} includes {header}")
        self.assert_none(wrong, "against the order")
        self.assertGreater(n_includes, len(self.modules), "the pattern finds no includes")

    def test_each_include_names_a_file_of_the_tree(self):
        wrong = [
            f"{path} includes {header}"
            for path, text in sources(*LAYERS, *SEE_ALL).items()
            for header in INCLUDE.findall(text)
            if not (SOURCE / header).is_file()
        ]
        self.assert_none(wrong, "includes are written from the top of the tree")

    def test_devices_and_pollers_do_not_know_each_other(self):
        pairs = [("devices", "pollers"), ("pollers", "devices")]
        wrong = [
            f"{path} includes {header}"
            for path, text in self.files.items()
            for header in INCLUDE.findall(text)
            if (layer_of(path), layer_of(header)) in pairs
        ]
        self.assert_none(wrong, "devices and pollers are two sides")


class Words(TreeCase):
    def test_only_topo_knows_hwloc(self):
        knowing = [p for p, t in sources(*LAYERS, "bench").items() if re.search(r"hwloc_|<hwloc", t)]
        self.assertEqual(knowing, ["pollers/topo.c"])

    def test_only_the_plugin_knows_dpdk(self):
        knowing = [p for p, t in sources(*LAYERS, *SEE_ALL).items() if re.search(r"\brte_", t)]
        self.assertEqual(knowing, ["devices/dpdk_plugin.c"])

    def test_ring_layouts_are_named_in_ring_files_alone(self):
        named, wrong = 0, []
        for path, text in sources(*LAYERS).items():
            text = text.replace("__attribute__((packed))", "")
            for number, line in enumerate(text.splitlines(), 1):
                if LAYOUT_WORD.search(line):
                    named += 1
                    if not LAYOUT_FILES.fullmatch(path):
                        wrong.append(f"{path}:{number}: {line.strip()}")
        self.assert_none(wrong, "outside the ring files")
        self.assertGreater(named, 20, "the pattern does not find the layouts in the ring files")

    def test_each_source_states_its_licence_first(self):
        tag = "SPDX-License-Identifier: Apache-2.0"
        files = sources(*LAYERS, *SEE_ALL)
        lost = [p for p, text in files.items() if tag not in text.split("\n", 1)[0]]
        self.assert_none(lost, f"first line without {tag}")


class Tests(TreeCase):
    """A test that nobody runs is no test."""

    def test_each_test_file_is_run(self):
        meson = (SOURCE / "tests/meson.build").read_text()
        files = [p for p in (SOURCE / "tests").rglob("test_*") if p.suffix in (".c", ".py")]
        names = {path.stem.removeprefix("test_") for path in files}
        listed = re.findall(r"^  \['(\w+)', '\w+', \d+\]", meson, re.M)
        self.assert_none(sorted(names - set(listed)), "not in tests/meson.build")
        self.assert_none(sorted(set(listed) - names), "in tests/meson.build without a file")
        self.assertEqual(len(listed), len(files), "two tests of one name")


if __name__ == "__main__":
    unittest.main()
