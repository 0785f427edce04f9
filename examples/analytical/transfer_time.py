# SPDX-License-Identifier: MIT
"""How long transfers take on a network: transfer_time.py FILE [KEY=VALUE ...] SRC:DST:BYTES ...

All start at time 0.  KEY=VALUE are options of the network, such as semantics=corrected.
"""

import sys

import numpy as np

from astra_bridge.network.api import TIME_NEVER, TRANSFER, Stop
from astra_bridge.network.registry import backend
from astra_bridge.network.spec import NetworkRequest


def main() -> None:
    file, *rest = sys.argv[1:]
    options = dict(word.split("=", 1) for word in rest if "=" in word)
    transfers = [tuple(map(int, word.split(":"))) for word in rest if "=" not in word]
    items = np.array(
        [(i, 0, size, src, dst, 0, 0, 0) for i, (src, dst, size) in enumerate(transfers)], TRANSFER
    )
    for name in ("analytical-unaware", "analytical-aware"):
        spec = backend(name)
        config = spec.prepare(NetworkRequest(file, options=options)).config
        with spec.open(config) as network:
            network.submit(items)
            while network.advance(TIME_NEVER).stop != Stop.IDLE:
                for record in network.poll():
                    src, dst, size = transfers[record["id"]]
                    print(f"{name}: {size} bytes {src} -> {dst}: {record['time_ps'] // 1000} ns")


if __name__ == "__main__":
    main()
