# SPDX-License-Identifier: MIT
"""A Program: its tables, which it can check, write and read."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import numpy as np

from astra_bridge.errors import InputError
from astra_bridge.program.rules import check_program
from astra_bridge.program.tables import Tables
from astra_bridge.records import values

__all__ = ["Program"]


class Program(Tables, frozen=True, eq=False):
    """What an engine runs, as arrays; `Tables` has them."""

    def save(self, file: str | Path | IO[bytes]) -> None:
        """Write it as ``.npz``: an array per table.

        Examples
        --------
        >>> import io
        >>> from astra_bridge.program import TEMPLATE, one_job, tasks
        >>> one = Program(
        ...     tasks=tasks([0]),
        ...     jobs=one_job(1),
        ...     machine_of_rank=np.zeros(1, np.int32),
        ...     memory_server=np.full(1, -1, np.int32),
        ...     templates=np.zeros(1, TEMPLATE),
        ... )
        >>> file = io.BytesIO()
        >>> one.save(file)
        >>> Program.load(io.BytesIO(file.getvalue())).ranks
        1
        """
        np.savez(file, **values(self))

    @classmethod
    def load(cls, file: str | Path | IO[bytes]) -> Program:
        """Read what `save` wrote, and validate it.

        Raises
        ------
        InputError
            The file is no such file, or the Program breaks a rule.
        """
        from zipfile import BadZipFile  # few Programs are read from files

        name = file if isinstance(file, (str, Path)) else None
        try:
            with np.load(file, allow_pickle=False) as tables:
                read = {one: tables[one] for one in tables.files}
            scalars = {one: value.item() for one, value in read.items() if value.ndim == 0}
            program = cls(**read | scalars)
        except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
            raise InputError(f"holds no Program: {error}", file=name) from error
        program.validate()
        return program

    def validate(self) -> None:
        """Check every reference, range and sum of every table: engines rely on it.

        Raises
        ------
        InputError
            Names table, row, field, value and rule; see :mod:`astra_bridge.program.rules`.

        Examples
        --------
        >>> from astra_bridge.program import one_job, tasks
        >>> Program(
        ...     tasks=tasks([0, 5]),
        ...     jobs=one_job(2),
        ...     machine_of_rank=np.zeros(2, np.int32),
        ...     memory_server=np.full(2, -1, np.int32),
        ... ).validate()
        Traceback (most recent call last):
            ...
        astra_bridge.errors.InputError: program: tasks[0].template_index: is 0; nothing is allowed
        """

        check_program(self)
