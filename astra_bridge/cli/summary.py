# SPDX-License-Identifier: MIT
"""The short table for people at the end of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from astra_bridge.results.tiers import link_name
from astra_bridge.text import one_line
from astra_bridge.units import PS_PER_NS, size_text, time_text

if TYPE_CHECKING:
    from astra_bridge.results import Result, Table

__all__ = ["summary", "text_table"]

_BUSIEST_LINKS = 3
_TROUBLES = {
    "drops": "packets dropped",
    "lost": "packets lost on links",
    "retransmissions": "retransmissions",
    "timeouts": "timeouts",
    "pfc_pauses": "PFC pauses",
    "ecn_marks": "ECN marks",
}
"""What a packet-level network counts, the worst first; worth a word where it is not zero."""


def text_table(header: list[str], rows: list[list[str]]) -> str:
    """Lay out a table as text: first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [header, *rows]
    )


def summary(result: Result) -> str:
    """Times over all ranks, and the busiest links where the backend reports links."""
    columns = {"finish": result.finish_ns, "exposed communication": result.exposed_comm_ns}
    statistics = result.statistics
    names = {"gpu_ns": "GPU compute", "comm_ns": "communication", "cpu_ns": "CPU compute",
             "remote_mem_ns": "remote memory", "compute_comm_overlap_ns": "overlap"}  # fmt: skip
    for column, values in statistics.columns().items():
        if column in names and values.any():
            columns[names[column]] = values
    rows = [
        [name, *(time_text(int(value) * PS_PER_NS) for value in
                 (values.min(), round(values.mean()), values.max())), f"{int(values.argmax())}"]
        for name, values in columns.items()
    ]  # fmt: skip
    parts = [
        f"{result.rank_count} ranks, backend {one_line(result.backend)}, engine {result.engine}, "
        f"semantics {result.semantics}: {result.events:,} events in {result.wall_s:.3f} s",
        text_table(["time", "min", "mean", "max", "max at rank"], rows),
    ]
    links = result.busiest_links(_BUSIEST_LINKS) if "links" in result.tables else None
    if links is not None and len(links) and links["busy_ps"].any():
        end_ps = max(int(result.finish_ps.max()), 1)
        rows = [
            [one_line(link_name(links, at)), size_text(int(links["bytes"][at])),
             f"{links['busy_ps'][at] / end_ps:.1%}"]
            for at in range(len(links))
        ]  # fmt: skip
        count = len(result.tables["links"])
        parts.append(text_table([f"busiest of {count} links", "bytes", "busy"], rows))
        if len(result.tiers) > 1:
            parts.append(_tiers(result.tiers))
    if result.folding.asked:
        parts.append(f"note: {result.folding.sentence()}")
    # Why none was is in the result; here it would be a line under most runs.
    if result.wavefront.phases or result.wavefront.threads > 1:
        parts.append(f"note: {result.wavefront.sentence()}")
    forward = _fast_forward(result)
    if forward:
        parts.append(f"fast-forward: {forward}")
    troubles = _troubles(result)
    if troubles:
        parts.append(f"in the network: {troubles}")
    return "\n\n".join(parts)


def _fast_forward(result: Result) -> str:
    """How much of the time a network did not simulate event by event, where it was asked not to."""
    jumped = result.network.get("fast_forward_ns")
    if not isinstance(jumped, int):
        return ""
    whole = time_text(max(int(result.finish_ns.max()), 1) * PS_PER_NS)
    said = f"none of {whole} jumped"
    if jumped > 0:
        said = (
            f"{time_text(jumped * PS_PER_NS)} of {whole} jumped, in "
            f"{result.network['fast_forward_jumps']:,} jumps, exact"
        )
    left_out = result.network.get("fast_forward_left_out_hops")
    if isinstance(left_out, int):
        hops = max(int(result.network["packet_hops"]), 1)
        said += f"; {left_out / hops:.1%} of the packet-hops left out where they were known"
    return said


def _tiers(tiers: Table) -> str:
    """A line per tier of links, those with traffic, and its busiest link."""
    header = ["links by tier", "links", "bytes", "busy", "the busiest", "busy"]
    queues = {"max_queue_bytes": "longest queue", "mean_queue_bytes": "mean queue"}
    shown = [name for name in queues if name in tiers and tiers[name].any()]
    rows = []
    for at in np.flatnonzero(tiers["bytes"]).tolist():
        row = [one_line(str(tiers["tier"][at])), f"{tiers['links'][at]:,}",
               size_text(int(tiers["bytes"][at])), f"{tiers['busy_share'][at]:.1%}",
               one_line(str(tiers["busiest_link"][at])),
               f"{tiers['max_busy_share'][at]:.1%}"]  # fmt: skip
        rows.append([*row, *(size_text(float(tiers[name][at])) for name in shown)])
    return text_table([*header, *(queues[name] for name in shown)], rows)


def _troubles(result: Result) -> str:
    """What went otherwise than in an idle network: on which tiers, and on which link most of it."""
    links = result.links if "links" in result.tables else None
    said = []
    for key, name in _TROUBLES.items():
        count = result.network.get(key, 0)
        if not isinstance(count, int) or count <= 0:
            continue
        column = {"pfc_pauses": "pauses_sent"}.get(key, key)
        where = ""
        if links is not None and column in links and links[column].dtype.kind in "iu":
            at = int(np.argmax(links[column]))
            where = f"{links[column][at]:,} at {one_line(link_name(links, at))}"
            tiers = result.tiers
            counts = tiers[column] if column in tiers else np.zeros(0, np.int64)
            on = [
                f"{counts[row]:,} on {one_line(str(tiers['tier'][row]))}"
                for row in np.argsort(-counts, kind="stable").tolist()
                if counts[row] > 0
            ]
            where = f" ({', '.join([*on, where])})"
        said.append(f"{count:,} {name}{where}")
    return ", ".join(said)
