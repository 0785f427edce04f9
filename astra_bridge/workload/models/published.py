# SPDX-License-Identifier: MIT
"""Numbers of parameters beside those that the makers of models published."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from astra_bridge.inputs.common import load_json
from astra_bridge.workload.models.config import model_file, model_names, named_model
from astra_bridge.workload.models.formulas import active_parameters, parameters

__all__ = ["Published", "models_text", "published"]

_UNITS = {"M": 1e6, "B": 1e9, "T": 1e12}


class Published(NamedTuple):
    """What the makers of a model say.

    Attributes
    ----------
    total, active : str
        Parameters, and those of them that a token meets, in their digits: ``671B``; "" where they
        do not say it.
    embedding : bool
        Whether the embedding counts as active: what fits better, where they do not say it.
    source : str
    """

    total: str
    active: str
    embedding: bool
    source: str


def published(name: str) -> Published:
    """What is published of a model that is shipped.

    Raises
    ------
    InputError
        Nothing has this name.

    Examples
    --------
    >>> published("deepseek-v3").total
    '671B'
    """
    said = load_json(model_file(name))["_published"]
    return Published(
        said["total"], said.get("active", ""), said.get("embedding", False), said["source"]
    )


def amount(text: str) -> float:
    """A number of parameters.

    Examples
    --------
    >>> amount("1.04T")
    1040000000000
    """
    return round(float(text[:-1]) * _UNITS[text[-1]])


def _beside(found: int, said: str) -> list[str]:
    difference = f"{100 * (found / amount(said) - 1):+.1f} %" if said else ""
    return [f"{found / 1e9:.3f}", said, difference]


def models_text(names: Sequence[str] = ()) -> str:
    """A table of models: computed numbers of parameters, published ones, and how far they are off.

    Parameters
    ----------
    names
        Names, or paths of ``config.json``; empty for all that are shipped.

    Raises
    ------
    InputError
        As :func:`named_model`.

    Examples
    --------
    >>> print(models_text(["mixtral-8x7b"]).splitlines()[-1][:50])
    mixtral-8x7b      46.703      46.7B  +0.0 %  12.74
    """
    rows = [
        ["model", "parameters", "published", "", "active", "as counted", "published", "", "source"]
    ]
    shipped = model_names()
    for name in names or shipped:
        model = named_model(name)
        said = published(name) if name in shipped else Published("", "", False, str(Path(name)))
        counted = ["", "", ""]
        if said.active:
            counted = _beside(active_parameters(model, embedding=said.embedding), said.active)
        total = _beside(parameters(model), said.total)
        active = f"{active_parameters(model) / 1e9:.3f}"
        rows.append([model.name, *total, active, *counted, said.source])
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]) - 1)]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:], strict=True)]
        lines.append("  ".join([*cells, row[-1]]).rstrip())
    return "\n".join(["parameters, and those of them that a token meets [10^9]", *lines])
