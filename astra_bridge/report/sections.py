# SPDX-License-Identifier: MIT
"""The parts of a page about one run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astra_bridge.collectives.bus_bandwidth import bus_factor
from astra_bridge.report.parts import (
    Cell,
    Figure,
    Scale,
    Section,
    Sheet,
    bandwidth,
    count,
    drawn,
    palette,
    share,
    size,
    speed,
    text,
    time,
)
from astra_bridge.report.reading import Run
from astra_bridge.results import Table
from astra_bridge.results.tiers import link_name
from astra_bridge.trace import CommType
from astra_bridge.units import time_text

__all__ = ["sections", "summary"]

Ints = NDArray[np.int64]

_PACKETS = {
    "drops": "packets dropped", "lost": "packets lost on links",
    "retransmissions": "retransmissions", "timeouts": "timeouts", "pfc_pauses": "PFC pauses",
    "ecn_marks": "ECN marks",
}  # fmt: skip
_MOST_KINDS = 40
_MOST_ROWS = 20
_MOST_SEGMENTS = 400
_MOST_DRAWN = 3000
_ASK = (
    "This run was not asked. astra-bridge run --explain writes it; astra-bridge explain --measure "
    "says on every backend what each better bandwidth and latency changes."
)
_AT_EARLIEST = (
    " Other paths were not looked at, so the run would end at the earliest at these times; "
    "astra-bridge explain --measure runs it again with each."
)


def summary(run: Run) -> Sheet:
    """What people look at first."""
    content = run.content
    ranks = len(run.finish_ps)
    rows = [
        [text("finish of the last rank"), time(run.end_ps)],
        [text("finish of the first rank"), time(int(run.finish_ps.min(initial=run.end_ps)))],
        [text("ranks"), count(ranks)],
    ]
    model = content.get("model", {})
    if model:
        rows.append([text("model"), text(model["model"])])
        rows.append([text("training step, or all requests"), time(model["step_ps"])])
        rows.append([text("tokens"), count(model["tokens"])])
        rows.append([text("tokens per second"), speed(model["tokens_per_s"])])
        if "mfu" in model:
            rows.append([text(f"model FLOPS utilization of {model['accelerator']}"),
                         share(model["mfu"])])  # fmt: skip
    gpu = content["statistics"].get("gpu_ns")
    if gpu and run.end_ps:
        rows.append(
            [text("time in which GPUs compute, mean"), share(sum(gpu) * 1e3 / ranks / run.end_ps)]
        )
    exposed = max(content["exposed_comm_ns"], default=0)
    rows.append([text("exposed communication, at most"), time(exposed * 1000)])
    tiers = run.table("tiers")
    if tiers is not None and len(tiers):
        at = int(np.argmax(tiers["max_busy_share"]))
        rows.append([text("busiest tier of links"), text(tiers["tier"][at])])
        rows.append([text("its busiest link"), text(tiers["busiest_link"][at])])
        rows.append([text("time in which that is busy"), share(float(tiers["max_busy_share"][at]))])
    rows += [
        [text("backend"), text(content["backend"])],
        [text("semantics"), text(content["semantics"])],
        [text("simulated in"), Cell(f"{content['wall_s']:.3g} s", content["wall_s"])],
        [text("events"), count(content["events"])],
    ]
    return Sheet("Summary", ["", "value"], rows)


def sections(run: Run, prefix: str = "") -> Iterator[Section]:
    """Everything that the folder of a run can show.

    Parameters
    ----------
    run
        The run.
    prefix
        Of anchors, where a page has several runs.
    """
    for make in (
        _time, _path, _faster, _memory, _collectives, _fabric, _load, _ranks, _provenance
    ):  # fmt: skip
        section = make(run)
        if section is not None:
            yield section._replace(anchor=prefix + section.anchor)


# ---- where the time went ----


def _time(run: Run) -> Section | None:
    table = run.table("breakdown")
    if table is None or not len(table):
        return None
    kinds = _kinds_of_rank(table, len(run.finish_ps))
    activities = list(dict.fromkeys(str(one) for one in table["activity"].tolist()))
    shown = kinds[:_MOST_KINDS]
    names = [f"{label} ({time_text(run.finish_ps[ranks[0]])})" for label, ranks in shown]
    traces, scale = [], Scale.up_to(run.end_ps)
    per_kind = []
    for label, ranks in shown:
        mine = table["rank"] == ranks[0]
        sums = _sums(table["activity"][mine], table["time_ps"][mine])
        per_kind.append((label, len(ranks), sums))
    for activity in activities:
        values = [sums.get(activity, 0) for _, _, sums in per_kind]
        traces.append({
            "type": "bar", "orientation": "h", "name": activity, "y": names,
            "x": [value / scale.unit_ps for value in values],
            "marker": {"color": palette(activity)},
            "customdata": [time_text(value) for value in values],
            "hovertemplate": "%{y}<br>" + activity + ": %{customdata}<extra></extra>",
        })  # fmt: skip
    layout = {
        "barmode": "stack", "xaxis": scale.axis(),
        "yaxis": {"autorange": "reversed", "automargin": True},
    }  # fmt: skip
    height = 140 + 26 * len(shown)
    figure = Figure("Where the time of each kind of rank went", traces, layout, height)
    rows = [
        [text(label), count(many), *(time(sums.get(one, 0)) for one in activities),
         time(sum(sums.values()))]
        for label, many, sums in per_kind
    ]  # fmt: skip
    words = [
        "At each instant one activity counts: what a GPU computes hides what goes on beside it. "
        "The parts of a rank add up to its finish. Ranks with the same parts are one line."
    ]
    if len(kinds) > len(shown):
        words.append(
            f"The {len(shown)} largest of {len(kinds)} kinds of ranks are shown; "
            "breakdown.csv has all ranks."
        )
    sheets = [
        Sheet("Time per kind of rank", ["ranks", "how many", *activities, "finish"], rows),
        _by_what(table, len(run.finish_ps)),
    ]
    return Section("time", "Where the time went", words, [figure], sheets)


def _by_what(table: Table, ranks: int) -> Sheet:
    """Which collectives and messages that was, on average over the ranks."""
    names = _names(table)
    sums = _sums(np.array(names, np.str_), table["time_ps"])
    order = sorted(sums, key=lambda name: -sums[name])
    rows = [[text(name), time(sums[name] / ranks)] for name in order[:_MOST_ROWS]]
    return Sheet("Mean over all ranks, by what it was", ["activity", "mean"], rows)


def _names(table: Table) -> list[str]:
    """What each row of a breakdown or a path was: "compute", "exposed collective: all-reduce"."""
    return [
        f"{activity}: {what}" if str(what) else str(activity)
        for activity, what in zip(table["activity"].tolist(), table["what"].tolist(), strict=True)
    ]


def _sums(names: NDArray[Any], values: Ints) -> dict[str, int]:
    """The sum of the values under each name."""
    different, which = np.unique(names.astype(np.str_), return_inverse=True)
    sums = np.zeros(len(different), np.int64)
    np.add.at(sums, which.reshape(-1), values)
    return dict(zip(different.tolist(), sums.tolist(), strict=True))


def _kinds_of_rank(table: Table, ranks: int) -> list[tuple[str, list[int]]]:
    """Ranks with the same parts, the largest kind first: what to call them, and which they are."""
    parts: dict[int, list[tuple[str, str, int]]] = {rank: [] for rank in range(ranks)}
    for rank, activity, what, time_ps in zip(
        *(table[name].tolist() for name in ("rank", "activity", "what", "time_ps")), strict=True
    ):
        parts[rank].append((activity, str(what), time_ps))
    kinds: dict[tuple[tuple[str, int], ...], list[int]] = {}
    for rank, mine in parts.items():
        sums: dict[str, int] = {}
        for activity, _, time_ps in mine:
            sums[activity] = sums.get(activity, 0) + time_ps
        kinds.setdefault(tuple(sorted(sums.items())), []).append(rank)
    found = sorted(kinds.values(), key=lambda one: (-len(one), one[0]))[:_MOST_KINDS]
    rest = sorted(kinds.values(), key=lambda one: (-len(one), one[0]))[_MOST_KINDS:]
    return [(_named(one), one) for one in [*sorted(found), *rest]]


def _named(ranks: list[int]) -> str:
    """rank 3, ranks 0-7, ranks 0, 2, 4 and 13 more."""
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    if ranks[-1] - ranks[0] == len(ranks) - 1:
        return f"ranks {ranks[0]}-{ranks[-1]}"
    first = ", ".join(map(str, ranks[:3]))
    return f"ranks {first}" + (f" and {len(ranks) - 3} more" if len(ranks) > 3 else "")


# ---- the critical path ----


def _path(run: Run) -> Section | None:
    table = run.table("critical_path")
    if table is None or not len(table):
        return None
    took = table["end_ps"] - table["start_ps"]
    names = _names(table)
    sums = _sums(np.array(names, np.str_), took)
    order = sorted(sums, key=lambda name: -sums[name])
    contributors = [
        [text(name), time(sums[name]), share(sums[name] / max(run.end_ps, 1))] for name in order
    ]
    longest = np.argsort(-took, kind="stable")[:_MOST_ROWS]
    rows = [
        [text(table["name"][at] or names[at]), text(names[at]), count(int(table["rank"][at])),
         time(int(table["start_ps"][at])), time(int(took[at]))]
        for at in longest.tolist()
    ]  # fmt: skip
    # Where there are many, the longest are drawn.
    longer = np.sort(np.argsort(-took, kind="stable")[:_MOST_SEGMENTS])
    traces, scale = [], Scale.up_to(run.end_ps)
    activities = table["activity"][longer]
    for activity in dict.fromkeys(activities.tolist()):
        mine = longer[activities == activity]
        traces.append({
            "type": "bar", "orientation": "h", "name": activity,
            "y": [f"rank {rank}" for rank in table["rank"][mine].tolist()],
            "base": (table["start_ps"][mine] / scale.unit_ps).tolist(),
            "x": (took[mine] / scale.unit_ps).tolist(), "marker": {"color": palette(activity)},
            "customdata": [[drawn(table["name"][at]), time_text(took[at])] for at in mine.tolist()],
            "hovertemplate": "%{y}: %{customdata[0]}<br>%{customdata[1]}<extra></extra>",
        })  # fmt: skip
    layout = {
        "barmode": "overlay", "xaxis": scale.axis(),
        "yaxis": {"automargin": True, "type": "category"},
    }  # fmt: skip
    ranks = len(set(table["rank"][longer].tolist()))
    words = [
        f"The chain of {len(table):,} node{'s' if len(table) > 1 else ''} that decided the finish; "
        "to be faster, one of these must be. A collective goes on with the member that began it "
        "last, a message with its send."
    ]
    if len(longer) < len(table):
        words.append(f"The figure has the {len(longer)} longest of them.")
    return Section(
        "path",
        "Critical path",
        words,
        [
            Figure(
                "The critical path over time and ranks", traces, layout, 160 + 26 * min(ranks, 30)
            )
        ],
        [
            Sheet("What it consists of", ["activity", "time", "of the finish"], contributors),
            Sheet("Its longest parts", ["node", "activity", "rank", "start", "took"], rows),
        ],
    )


# ---- what would make it faster ----


def _faster(run: Run) -> Section | None:
    table = run.table("sensitivities")
    if run.table("critical_path") is None:
        return None
    if table is None or not len(table):
        return Section("faster", "What would make it faster", [_ASK], [], [])
    shown = range(min(len(table), _MOST_ROWS))
    better = float(table["factor"][0])
    words = {"yes": "yes", "no": "no", "unknown": "not looked at"}
    rows = [
        [text(table["what"][at]), share(float(table["change"][at]), 2),
         time(int(table["finish_ps"][at])), text(words.get(str(table["other_path"][at]), "-"))]
        for at in shown
    ]  # fmt: skip
    sheet = Sheet(
        f"Each of them {better:g} times as good",
        ["what", "change of the finish", "finish then", "another path is longer then"],
        rows,
    )
    names = [drawn(table["what"][at]) for at in shown]
    figure = Figure(
        "How much sooner the run would end",
        [{"type": "bar", "orientation": "h", "y": names, "name": "sooner",
          "x": [-100 * float(table["change"][at]) for at in shown],
          "hovertemplate": "%{y}: %{x:.2f} %<extra></extra>", "marker": {"color": "#2f7d4f"}}],
        {"xaxis": {"title": {"text": "sooner [% of the finish]"}},
         "yaxis": {"autorange": "reversed", "automargin": True}},
        140 + 26 * len(names),
    )  # fmt: skip
    return Section(
        "faster",
        "What would make it faster",
        ["Predicted from this one run: messages on the critical path take as long as in a network "
         "with better links, and all that waits for them begins sooner."
         + (_AT_EARLIEST if "unknown" in table["other_path"] else "")],
        [figure],
        [sheet],
    )  # fmt: skip


# ---- memory ----


def _memory(run: Run) -> Section | None:
    model = run.content.get("model", {})
    kept = model.get("memory_bytes")
    if not kept:
        return None
    stages, stride = len(kept), model["stage_stride"]
    stage_of = np.arange(len(run.finish_ps)) // stride % stages
    names = list(dict.fromkeys(name for one in kept for name in one))
    rows, labels = [], []
    for stage, one in enumerate(kept):
        ranks = np.flatnonzero(stage_of == stage).tolist()
        labels.append(_named(ranks) if ranks else f"stage {stage}")
        rows.append([text(labels[-1]), count(stage), *(size(one.get(name, 0)) for name in names),
                     size(sum(one.values()))])  # fmt: skip
    traces = [
        {"type": "bar", "orientation": "h", "name": name, "y": labels,
         "x": [one.get(name, 0) / 2**30 for one in kept],
         "hovertemplate": "%{y}: %{x:.2f} GiB<extra></extra>"}
        for name in names
    ]  # fmt: skip
    layout = {
        "barmode": "stack", "xaxis": {"title": {"text": "memory [GiB]"}},
        "yaxis": {"autorange": "reversed", "automargin": True},
    }  # fmt: skip
    figure = Figure("What a rank of each stage keeps", traces, layout, 140 + 26 * stages)
    return Section(
        "memory",
        "Memory per rank",
        ["As the generator of the workload counts it, without what libraries need."],
        [figure],
        [Sheet("Memory of a rank", ["ranks", "stage", *names, "all"], rows)],
    )


# ---- collectives ----


def _collectives(run: Run) -> Section | None:
    table = run.table("collective_spans")
    if table is None or not len(table):
        return None
    names = ("what", "kind", "bytes", "ranks")
    keys = list(zip(*(table[name].tolist() for name in names), strict=True))
    groups: dict[tuple[Any, ...], list[int]] = {}
    for at, key in enumerate(keys):
        groups.setdefault(key, []).append(at)
    took = table["end_ps"] - table["last_start_ps"]
    late = table["last_start_ps"] - table["first_start_ps"]
    rows, points = [], []
    order = sorted(groups, key=lambda key: -int(took[groups[key]].sum()))
    for key in order:
        what, kind, bytes_, ranks = key
        which = groups[key]
        mean = float(took[which].mean())
        factor = bus_factor(CommType(kind), ranks) if kind in set(CommType) else None
        # As nccl-tests count it; Chakra gives what a rank contributes to an all-gather.
        whole = bytes_ * (ranks if kind == CommType.ALL_GATHER else 1)
        rate = whole * 1e3 / mean if mean > 0 else 0.0
        row = [
            text(what), size(bytes_), count(ranks), count(len(which)), time(mean),
            time(float(took[which].max())), time(float(late[which].mean())),
        ]  # fmt: skip
        if factor is None:
            row += [Cell("-")] * 4
        else:
            ideal = float(table["ideal_GBps"][which].mean()) if "ideal_GBps" in table else 0.0
            ideal = 0.0 if math.isnan(ideal) else ideal
            row += [bandwidth(rate), bandwidth(rate * factor)]
            row += (
                [bandwidth(ideal), share(rate * factor / ideal)] if ideal else [Cell("unknown")] * 2
            )
            points.append((what, bytes_, rate * factor, len(which)))
        rows.append(row)
    header = ["collective", "bytes", "ranks", "times", "mean", "longest", "stragglers wait, mean",
              "algorithm bandwidth", "bus bandwidth", "ideal", "of the ideal"]  # fmt: skip
    traces = [
        {"type": "scatter", "mode": "markers", "name": drawn(what),
         "x": [one[1] for one in points if one[0] == what],
         "y": [one[2] for one in points if one[0] == what],
         "hovertemplate": "%{x} B<br>%{y:.4g} GB/s<extra></extra>", "marker": {"size": 9}}
        for what in dict.fromkeys(str(one[0]) for one in points)
    ][:12]  # fmt: skip
    layout = {
        "xaxis": {"title": {"text": "size [B]"}, "type": "log"},
        "yaxis": {"title": {"text": "bus bandwidth [GB/s]"}, "rangemode": "tozero"},
    }
    figures = [Figure("Bus bandwidth of each kind of collective by size", traces, layout)]
    words = [
        "From the start of the last member to the end of the last one; bandwidths as nccl-tests "
        "print them, of the mean. The ideal is what all links out of a rank towards the others "
        "could carry, where the network says so."
    ]
    sheets = [Sheet("Collectives", header, rows[: 3 * _MOST_ROWS])]
    if len(rows) > 3 * _MOST_ROWS:
        words.append(f"The {3 * _MOST_ROWS} that took most of {len(rows)} kinds are listed.")
    return Section("collectives", "Collectives", words, figures if points else [], sheets)


# ---- the network ----


def _fabric(run: Run) -> Section | None:
    tiers, links = run.table("tiers"), run.table("links")
    if tiers is None or links is None or not len(tiers):
        return None
    names = [drawn(one) for one in tiers["tier"].tolist()]
    traces: list[dict[str, Any]] = [
        {"type": "bar", "name": label, "x": names, "y": (100 * tiers[column]).tolist(),
         "hovertemplate": "%{x}: %{y:.1f} %<extra></extra>", "marker": {"color": color}}
        for label, column, color in (
            ("mean", "busy_share", "#4b7fb5"), ("busiest link", "max_busy_share", "#c4481d"))
    ]  # fmt: skip
    layout = {"yaxis": {"title": {"text": "busy [% of the time]"}, "range": [0, 100]}}
    figures = [Figure("How busy each tier of links was", traces, layout)]
    words = []
    if len(links):
        figures.append(_drawing(links, run.end_ps))
        if len(links) > _MOST_DRAWN:
            words.append(
                f"Of {len(links):,} links, the {_MOST_DRAWN:,} that were busy longest are drawn."
            )
    counted = {
        "max_queue_bytes": ("longest queue", size), "mean_queue_bytes": ("mean queue", size),
        "pauses_sent": ("PFC pauses", count), "ecn_marks": ("ECN marks", count),
        "drops": ("drops", count), "lost": ("lost", count),
    }  # fmt: skip
    more = {name: one for name, one in counted.items() if name in tiers}
    header = ["tier", "links", "bytes", "busy, mean", "busiest link", "busy", *(
        label for label, _ in more.values())]  # fmt: skip
    rows = [
        [text(tiers["tier"][at]), count(int(tiers["links"][at])), size(int(tiers["bytes"][at])),
         share(float(tiers["busy_share"][at])), text(tiers["busiest_link"][at]),
         share(float(tiers["max_busy_share"][at])),
         *(make(tiers[name][at].item()) for name, (_, make) in more.items())]
        for at in range(len(tiers))
    ]  # fmt: skip
    hottest = np.argsort(-links["busy_ps"], kind="stable")[:_MOST_ROWS]
    hot = [
        [text(link_name(links, at)), text(links["tier"][at] if "tier" in links else ""),
         size(int(links["bytes"][at])), share(links["busy_ps"][at] / max(run.end_ps, 1))]
        for at in hottest.tolist()
    ]  # fmt: skip
    sheets = [
        Sheet("Tiers", header, rows),
        Sheet("Hottest links", ["link", "tier", "bytes", "busy"], hot),
    ]
    counts = run.content.get("network", {})
    told = [
        [text(label), count(int(counts[name]))]
        for name, label in _PACKETS.items()
        if isinstance(counts.get(name), int)
    ]
    if told:
        sheets.append(Sheet("Packets", ["", "how many"], told))
    return Section("network", "Network", words, figures, sheets)


def _drawing(links: Table, end_ps: int) -> Figure:
    """The fabric, its links coloured by load; where it has too many, the hottest ones."""
    if len(links) > _MOST_DRAWN:
        hottest = np.sort(np.argsort(-links["busy_ps"], kind="stable")[:_MOST_DRAWN])
        links = Table("links", {name: values[hottest] for name, values in links.items()})
    ends = [links["src"].tolist(), links["dst"].tolist()]
    nodes = sorted(set(ends[0]) | set(ends[1]))
    x, y = _places(links, nodes)
    busy = 100 * links["busy_ps"] / max(end_ps, 1)
    traces: list[dict[str, Any]] = []
    steps = (0, 10, 25, 50, 75, 101)
    colors = ("#9aa5b1", "#4b7fb5", "#2f9d8f", "#d98a1f", "#c4481d")
    for low, high, color in zip(steps, steps[1:], colors, strict=False):
        mine = np.flatnonzero((busy >= low) & (busy < high)).tolist()
        if not mine:
            continue
        line_x, line_y = [], []
        for at in mine:
            a, b = ends[0][at], ends[1][at]
            line_x += [x[a], x[b], None]
            line_y += [y[a], y[b], None]
        traces.append({
            "type": "scatter", "mode": "lines", "x": line_x, "y": line_y, "hoverinfo": "skip",
            "name": f"{low} to {min(high, 100)} % busy",
            "line": {"color": color, "width": 1 + low / 25},
        })  # fmt: skip
    label: dict[int, str] = {}
    for end in ("src", "dst"):
        names = links[f"{end}_name" if f"{end}_name" in links else end].tolist()
        label.update(zip(links[end].tolist(), map(drawn, names), strict=True))
    traces.append({
        "type": "scatter", "mode": "markers", "name": "nodes", "x": [x[one] for one in nodes],
        "y": [y[one] for one in nodes], "text": [label[one] for one in nodes],
        "hovertemplate": "%{text}<extra></extra>", "marker": {"size": 6, "color": "#666666"},
    })  # fmt: skip
    hidden = {"visible": False}
    return Figure(
        "The fabric, its links coloured by how busy they were", traces,
        {"xaxis": hidden, "yaxis": hidden}, 420,
    )  # fmt: skip


def _places(links: Table, nodes: list[int]) -> tuple[dict[int, float], dict[int, float]]:
    """Where to draw each node: tiers one above the other, or all on a circle."""
    level: dict[int, int] = dict.fromkeys(nodes, 0)
    tiers = [str(one) for one in links["tier"].tolist()] if "tier" in links else []
    ups = [at for at, name in enumerate(tiers) if name.endswith(" up")]
    for _ in range(8 if ups else 0):  # more tiers than any fabric has
        for at in ups:
            low, high = int(links["src"][at]), int(links["dst"][at])
            level[high] = max(level[high], level[low] + 1)
    if not ups:
        angle = {one: 2 * np.pi * at / len(nodes) for at, one in enumerate(nodes)}
        return (
            {one: float(np.cos(angle[one])) for one in nodes},
            {one: float(np.sin(angle[one])) for one in nodes},
        )
    x: dict[int, float] = {}
    for one in set(level.values()):
        mine = [node for node in nodes if level[node] == one]
        x |= {node: (at + 0.5) / len(mine) for at, node in enumerate(mine)}
    return x, {one: float(level[one]) for one in nodes}


def _load(run: Run) -> Section | None:
    table = run.table("tier_load")
    if table is None or not len(table):
        return None
    figures, scale = [], Scale.up_to(run.end_ps)
    columns = (
        ("busy_share", "How busy each tier was over time", "busy [% of the time]", 100.0),
        ("max_queue_bytes", "Longest queue of each tier over time", "queue [kB]", 1e-3),
    )
    for column, label, title, factor in columns:
        if column not in table or not table[column].any():
            continue
        traces = []
        for name in dict.fromkeys(table["tier"].tolist()):
            mine = np.flatnonzero(table["tier"] == name)
            mine = mine[:: max(1, len(mine) // _MOST_SEGMENTS)]
            traces.append({
                "type": "scatter", "mode": "lines", "name": drawn(name),
                "x": (table["time_ps"][mine] / scale.unit_ps).tolist(),
                "y": (table[column][mine] * factor).tolist(),
            })  # fmt: skip
        layout = {"xaxis": scale.axis(), "yaxis": {"title": {"text": title}}}
        figures.append(Figure(label, traces, layout))
    return Section("load", "Network over time", [], figures, []) if figures else None


# ---- ranks, and what ran ----


def _ranks(run: Run) -> Section:
    finish, scale = run.finish_ps, Scale.up_to(run.end_ps)
    steps = {"dtick": 1} if len(finish) <= 16 else {}
    figure = Figure(
        "Finish of each rank",
        [{"type": "scatter", "mode": "lines", "line": {"shape": "hvh"}, "name": "finish",
          "x": list(range(len(finish)))[:: max(1, len(finish) // 4000)],
          "y": (finish / scale.unit_ps).tolist()[:: max(1, len(finish) // 4000)]}],
        {"xaxis": {"title": {"text": "rank"}, **steps},
         "yaxis": {**scale.axis("finish"), "rangemode": "tozero"}},
        260,
    )  # fmt: skip
    slowest = np.argsort(-finish, kind="stable")[:_MOST_ROWS]
    exposed = run.content["exposed_comm_ns"]
    rows = [
        [count(int(rank)), time(int(finish[rank])), time(exposed[rank] * 1000)]
        for rank in slowest.tolist()
    ]
    sheet = Sheet("The last to finish", ["rank", "finish", "exposed communication"], rows)
    return Section("ranks", "Ranks", [], [figure], [sheet])


def _provenance(run: Run) -> Section:
    content = run.content
    known = content.get("provenance", {})
    rows = [[text("folder"), text(run.name)], [text("engine"), text(content["engine"])]]
    if "token" in known:
        rows.append([text("experiment"), text(known["token"])])
    for name, one in known.get("inputs", {}).items():
        shown = one if isinstance(one, str) else one.get("name") or one.get("content", "")
        rows.append([text(str(name).replace("_", " ")), text(shown)])
    rows += [[text(name), text(one)] for name, one in known.get("versions", {}).items()]
    return Section(
        "provenance", "What ran", list(content.get("warnings", ())), [],
        [Sheet("What ran", ["", "value"], rows)],
    )  # fmt: skip
