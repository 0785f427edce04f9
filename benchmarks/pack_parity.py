# SPDX-License-Identifier: MIT
"""Pack the golden cases into the file that ships with the package.

python benchmarks/pack_parity.py ../shared/golden
"""

from __future__ import annotations

import json
import lzma
import sys
from pathlib import Path

from astra_bridge.validation.parity import SHIPPED_CASES

golden = Path(sys.argv[1])
cases = {
    kind: [
        json.loads(path.read_text()) | {"id": path.stem}
        for path in sorted((golden / kind).glob(pattern))
    ]
    # Quirks of gem5, z..., are not to be reproduced.
    for kind, pattern in (("analytical", "*.json"), ("ns3", "*.json"), ("garnet", "[!z]*.json"))
}
packed = lzma.compress(json.dumps(cases, separators=(",", ":")).encode(), preset=9)
SHIPPED_CASES.write_bytes(packed)
print({kind: len(found) for kind, found in cases.items()}, f"{len(packed) / 1e3:.0f} kB")
