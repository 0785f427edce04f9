# SPDX-License-Identifier: MIT
"""The service that users of ``astra-sim-sdk`` talk to; docs/serve.md.

`configuration` makes files and flags of what they send, `job` runs these, `http` is how it crosses.
"""

from astra_bridge.service.job import Refusal, Service

__all__ = ["Refusal", "Service"]
