#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Two guests on two switches that only the host joins: TAPs on a bridge, DPDK on a veth."""

import json
import unittest

from network import Network, bridge, veth


class Uplinks(Network):
    def join(self, *uplinks):
        """A switch for each."""
        lines = []
        for i, uplink in enumerate(uplinks):
            lines += [f"switch s{i}", f"port u{i} switch=s{i} {uplink}"]
        self.start(*lines)

    def exchange_both(self):
        self.exchange("--size", "64")
        self.exchange("--size", "1514", "--ring", "packed", "--mergeable")

    def test_tap(self):
        self.join("tap=t0", "tap=t1")
        bridge("between", "t0", "t1")
        self.exchange_both()
        self.assertIn('"interface": "open"', json.dumps(self.show("u0")))
        self.stop()

    def test_dpdk(self):
        self.need_plugin()
        veth("v0", "v1")
        self.join("dpdk=net_af_packet0,iface=v0", "dpdk=net_af_packet1,iface=v1")
        self.exchange_both()
        self.stop()


if __name__ == "__main__":
    unittest.main()
