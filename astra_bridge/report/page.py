# SPDX-License-Identifier: MIT
"""The page as one HTML file that needs nothing else: Jinja2 lays it out, Plotly draws.

Plotly's JavaScript stands in the page, compressed; without JavaScript every number is in a table.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

from astra_bridge.errors import MissingDependency
from astra_bridge.report.parts import (
    Cell,
    Figure,
    Scale,
    Section,
    Sheet,
    drawn,
    share,
    speed,
    text,
    time,
)
from astra_bridge.report.reading import Run
from astra_bridge.report.sections import sections, summary
from astra_bridge.text import one_line

__all__ = ["page"]


def page(runs: Sequence[Run], title: str = "") -> str:
    """Make the page about a run, or about several beside one another.

    Raises
    ------
    MissingDependency
        Jinja2 or Plotly is not installed.
    """
    try:
        import jinja2
    except ImportError as error:
        raise _missing(error) from None
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.PackageLoader("astra_bridge.report", "templates"),
    )
    environment.filters["drawing"] = _drawing
    several = len(runs) > 1
    prefixes = [f"run{at}-" if several else "" for at in range(len(runs))]
    rendered: str = environment.get_template("page.html").render(
        title=title or ("Runs compared" if several else f"Run {runs[0].name}"),
        comparison=_comparison(runs) if several else None,
        runs=[
            {
                "prefix": prefix,
                "name": run.name,
                "summary": summary(run),
                "sections": list(sections(run, prefix)),
            }
            for prefix, run in zip(prefixes, runs, strict=True)
        ],
        plotly=_plotly(),
        style=_own("page.css"),
        script=_own("page.js"),
    )
    return rendered


def _comparison(runs: Sequence[Run]) -> Section:
    """The runs beside one another, with the difference from the first."""
    first = runs[0].end_ps
    rows: list[list[Cell]] = []
    header = ["run", "backend", "finish", "than the first", "exposed communication, at most"]
    models = [run.content.get("model", {}) for run in runs]
    told = [(name, key, make) for name, key, make in
            (("tokens per second", "tokens_per_s", speed), ("MFU", "mfu", share))
            if any(key in one for one in models)]  # fmt: skip
    for run, model in zip(runs, models, strict=True):
        change = share(run.end_ps / first - 1) if first else text("-")
        exposed = max(run.content["exposed_comm_ns"], default=0) * 1000
        rows.append(
            [text(run.name), text(run.content["backend"]), time(run.end_ps), change, time(exposed),
             *(make(model[key]) if key in model else text("-") for _, key, make in told)]
        )  # fmt: skip
    header += [name for name, _, _ in told]
    parts: list[dict[str, int]] = []
    for run in runs:
        table = run.table("critical_path")
        sums: dict[str, int] = {}
        if table is not None:
            took = table["end_ps"] - table["start_ps"]
            for name, value in zip(table["activity"].tolist(), took.tolist(), strict=True):
                sums[name] = sums.get(name, 0) + value
        parts.append(sums)
    activities = list(dict.fromkeys(name for sums in parts for name in sums))
    scale = Scale.up_to(max(run.end_ps for run in runs))
    figure = Figure(
        "Critical path of each run, by activity",
        [
            {"type": "bar", "name": name, "x": [drawn(run.name) for run in runs],
             "y": [sums.get(name, 0) / scale.unit_ps for sums in parts]}
            for name in activities
        ],
        {"barmode": "stack", "yaxis": scale.axis()},
    )  # fmt: skip
    sheets = [Sheet("Runs", header, rows)]
    if activities:
        path = [
            [text(run.name), *(time(sums.get(name, 0)) for name in activities)]
            for run, sums in zip(runs, parts, strict=True)
        ]
        sheets.append(Sheet("Critical path by activity", ["run", *activities], path))
        differences = [
            [text(run.name), *(time(sums.get(name, 0) - parts[0].get(name, 0))
                               for name in activities)]
            for run, sums in zip(runs[1:], parts[1:], strict=True)
        ]  # fmt: skip
        caption = "Critical path, longer than that of the first run by"
        sheets.append(Sheet(caption, ["run", *activities], differences))
    return Section("comparison", "Side by side", [], [figure] if activities else [], sheets)


def _missing(error: ImportError) -> MissingDependency:
    return MissingDependency(
        f"reports need Plotly and Jinja2 ({one_line(str(error))}): "
        "pip install 'astra-bridge[report]'"
    )


def _drawing(figure: Figure) -> Any:
    """A figure as JSON that cannot end the element it stands in."""
    from markupsafe import Markup

    content = json.dumps({"data": figure.traces, "layout": figure.layout}, separators=(",", ":"))
    return Markup(content.replace("<", "\\u003c"))


@cache
def _plotly() -> str:
    """Plotly's JavaScript: gzip, then base64."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise _missing(error) from None
    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), 9, mtime=0)).decode()


def _own(name: str) -> str:
    return (resources.files("astra_bridge.report") / "templates" / name).read_text("utf-8")
