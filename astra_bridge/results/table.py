# SPDX-License-Identifier: MIT
"""Tables: columns of equal length, with units, for whatever people use next."""

from __future__ import annotations

from collections.abc import Callable, ItemsView, KeysView, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from astra_bridge.errors import MissingDependency
from astra_bridge.text import one_line

if TYPE_CHECKING:
    import pyarrow

__all__ = ["Table", "unit_of"]

_UNITS = ("ps", "ns", "us", "ms", "bytes", "flits", "packets", "Bps", "GBps", "TFLOPS", "FLOPs")
_SHOWN = 10


def unit_of(column: str) -> str:
    """The unit that the name of a column ends with; "" where it has none.

    Examples
    --------
    >>> unit_of("busy_ps"), unit_of("bytes"), unit_of("rank")
    ('ps', 'bytes', '')
    """
    last = column.rpartition("_")[2]
    return last if last in _UNITS else ""


class Table:
    """Columns of equal length by name.

    Parameters
    ----------
    name : str
    columns : mapping of str to ndarray, each of shape (rows,)
        A name ends with its unit ("busy_ps"), where it has one.  A function gives the column when
        it is first asked for.
    rows : int, optional
        How many there are; else the first column says it.

    Examples
    --------
    >>> table = Table("links", {"link": np.arange(2), "busy_ps": np.array([10, 30])})
    >>> len(table), int(table["busy_ps"].sum()), table.units
    (2, 40, {'link': '', 'busy_ps': 'ps'})
    """

    def __init__(
        self,
        name: str,
        columns: Mapping[str, npt.ArrayLike | Callable[[], npt.ArrayLike]],
        rows: int | None = None,
    ) -> None:
        self.name, self._rows = name, rows
        self._made: dict[str, Any] = {
            one: values if callable(values) else np.asarray(values)
            for one, values in columns.items()
        }

    @property
    def _columns(self) -> dict[str, npt.NDArray[Any]]:
        """All columns, made."""
        for one in self._made:
            _ = self[one]
        return self._made

    def __len__(self) -> int:
        if self._rows is None:
            self._rows = len(self[next(iter(self._made))]) if self._made else 0
        return self._rows

    def __getitem__(self, column: str) -> npt.NDArray[Any]:
        values = self._made[column]
        if callable(values):
            values = self._made[column] = np.asarray(values())
        made: npt.NDArray[Any] = values
        return made

    def __contains__(self, column: object) -> bool:
        return column in self._made

    def keys(self) -> KeysView[str]:
        """Names of the columns."""
        return self._made.keys()

    def items(self) -> ItemsView[str, npt.NDArray[Any]]:
        """Names and columns."""
        return self._columns.items()

    @property
    def units(self) -> dict[str, str]:
        """Unit of each column; "" is none."""
        return {name: unit_of(name) for name in self._made}

    def to_pandas(self) -> Any:
        """As a pandas DataFrame, whose ``attrs["units"]`` has the units.

        Raises
        ------
        MissingDependency
            pandas is not installed.
        """
        try:
            pandas = import_module("pandas")
        except ImportError as error:
            raise MissingDependency(
                "pandas is not installed, which Table.to_pandas needs: pip install pandas"
            ) from error
        frame = pandas.DataFrame(self._columns)
        frame.attrs["units"] = self.units
        return frame

    def to_arrow(self) -> pyarrow.Table:
        """As a pyarrow Table, whose fields have their unit as metadata.

        Raises
        ------
        MissingDependency
            pyarrow is not installed.
        """
        try:
            import pyarrow
        except ImportError as error:
            raise MissingDependency(
                "pyarrow is not installed, which Table.to_arrow needs: "
                "pip install 'astra_bridge[data]'"
            ) from error
        # What is not known (NaN) is null.
        arrays = [pyarrow.array(values, from_pandas=True) for values in self._columns.values()]
        schema = pyarrow.schema(
            [
                pyarrow.field(name, array.type, metadata={"unit": unit} if unit else None)
                for (name, unit), array in zip(self.units.items(), arrays, strict=True)
            ]
        )
        return pyarrow.Table.from_arrays(arrays, schema=schema)

    def __repr__(self) -> str:
        return f"Table {self.name}: {len(self)} rows of {', '.join(self._made)}"

    def _repr_html_(self) -> str:
        from html import escape

        header = "".join(f"<th>{escape(one_line(name))}</th>" for name in self._columns)
        rows = [
            "".join(
                f"<td>{escape(one_line(str(values[row])))}</td>"
                for values in self._columns.values()
            )
            for row in range(min(len(self), _SHOWN))
        ]
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        more = f"<p>{len(self)} rows</p>" if len(self) > _SHOWN else ""
        return (
            f"<table><caption>{escape(self.name)}</caption>"
            f"<thead><tr>{header}</tr></thead><tbody>{body}</tbody></table>{more}"
        )
