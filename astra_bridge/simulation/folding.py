# SPDX-License-Identifier: MIT
"""Let one rank run for all that are alike, where that is known to give the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from astra_bridge.errors import AstraBridgeError
from astra_bridge.isolation import Run, RunRequest
from astra_bridge.lowering import Lowered
from astra_bridge.network.spec import BackendSpec, Symmetry
from astra_bridge.program import Program
from astra_bridge.program.folding import Fold, NotFolded, fold
from astra_bridge.records import replace
from astra_bridge.results import Table
from astra_bridge.results.folding import FoldedLinks, Folding, NamesOfEnds, scaled

__all__ = ["FoldedRun", "NotFolded", "folded_run"]


@dataclass(frozen=True, eq=False)
class FoldedRun:
    """What the ranks that ran gave.

    Attributes
    ----------
    run : Run
    fold : Fold
    folding : Folding
    symmetry : Symmetry
        Of the folded network.
    """

    run: Run
    fold: Fold
    folding: Folding
    symmetry: Symmetry

    def unfolded_stats(self) -> dict[str, Any]:
        """What the network counts, of all ranks."""
        return scaled(self.run.stats, self.fold.copies)

    def kinds_of(self, lowered: Lowered) -> Lowered:
        """The ranks that ran alone."""
        rows = self.fold.program.tasks["job_rank"]
        return replace(
            lowered, program=self.fold.program, trace_of_task=lowered.trace_of_task[rows]
        )

    def links(self, names_of_ends: NamesOfEnds | None = None) -> FoldedLinks | None:
        """The links that stand for others; with names of their ends, where these have any."""
        columns = self.run.tables.get("links")
        if columns is None:
            return None
        return FoldedLinks(
            Table("links", columns),
            self.folding,
            self.symmetry.turned,
            names_of_ends,
            ascending=self.symmetry.kept is None,
        )


def folded_run(
    spec: BackendSpec,
    request: RunRequest,
    run: Callable[[BackendSpec, RunRequest], Run],
    record_nodes: Callable[[Program], bool],
) -> FoldedRun:
    """Run one rank for each set of equal ones.

    Parameters
    ----------
    spec
        The backend.
    request
        What is to run on it.
    run
        Runs it.
    record_nodes
        Whether to keep start and end of the nodes of so many ranks.

    Raises
    ------
    NotFolded
        Nothing can be folded, or this run does not tell what all ranks would have done.
    """
    if request.checkpoint is not None:
        raise NotFolded("there is a checkpoint, which is of all ranks")
    if request.link_faults:
        raise NotFolded("some links change meanwhile")
    symmetry = spec.symmetry(request.config)
    if symmetry is None:
        raise NotFolded(f"backend {spec.name} knows of no ranks of this network that are alike")
    found = fold(request.program, symmetry.turns, symmetry.kept)
    digits = ",".join(f"{stride}:{size}" for stride, size in found.digits)
    config = replace(
        request.config, options={**request.config.options, "fold": digits, **found.options}
    )
    request = msgspec.structs.replace(
        request, config=config, fold=found, record_nodes=record_nodes(found.program)
    )
    try:
        made = run(spec, request)
    except AstraBridgeError:
        # Whatever it is, all ranks tell it better.
        raise NotFolded("the run of those that are not alike failed") from None
    outcome, stats = made.outcome, dict(made.stats)
    _proven(outcome, int(stats.pop("fold_ties", 0)))
    ranks = Folding(found.digits, found.program.ranks)
    folded_symmetry = spec.symmetry(config)
    assert folded_symmetry is not None
    return FoldedRun(made._replace(stats=stats), found, ranks, folded_symmetry)


def _proven(outcome: Any, network_ties: int) -> None:
    """Whether what the ranks that ran did is what all would have done."""
    if (outcome.finish_ps < 0).any():
        raise NotFolded("some ranks never finish")
    if len(outcome.waits):
        raise NotFolded("some messages are sent and never received")
    if outcome.ties:
        rank, time_ps = outcome.first_tie
        raise NotFolded(
            f"{outcome.ties:,} time(s) two events came at once in an order that may differ from "
            f"rank to rank, first at rank {rank} at {time_ps // 1000:,} ns"
        )
    if network_ties:
        raise NotFolded(
            f"{network_ties:,} time(s) messages came to a link at once in an order that may differ "
            "from link to link"
        )
