# SPDX-License-Identifier: MIT
"""``astra-bridge models``: language models, with their parameters beside the published ones."""

from __future__ import annotations

from astra_bridge.cli.command import Argument, Command
from astra_bridge.workload.models.published import models_text

__all__ = ["COMMAND"]


def _models(model: list[str]) -> None:
    print(models_text(model))


COMMAND = Command(
    "List language models, with their parameters beside the published ones.",
    {
        "arguments": [
            Argument(
                "[MODEL]", "", "Names, or files config.json of Hugging Face; all that are shipped.",
                repeated=True,
            ),
        ],
    },
    _models,
    "models llama-3.1-8b deepseek-v3",
)  # fmt: skip
