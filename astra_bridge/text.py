# SPDX-License-Identifier: MIT
"""Foreign text (names in traces, what a backend says, values of a file) made fit to be shown.

It may hold control characters that drive a terminal, line breaks that forge lines of a log, or
millions of characters; nothing of that may leave the program, but in files made to hold it.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable

__all__ = ["nearest", "one_line", "printable", "show"]

_MOST_CHARACTERS = 1_000
_MOST_BITS = 256


class _Short(reprlib.Repr):
    """A ``repr`` of bounded length, in bounded time."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = 60
        self.maxlevel = 2

    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to write thousands of digits, and takes long for less.
        bits = x.bit_length()
        if bits > _MOST_BITS:
            return f"a whole number of about {bits * 30103 // 100000 + 1} digits"
        return super().repr_int(x, level)

    def repr_str(self, x: str, level: int) -> str:
        # Cut before repr, whose time grows with the text.
        if len(x) > 2 * self.maxstring:
            x = x[: self.maxstring] + x[-self.maxstring :]
        return super().repr_str(x, level)


_short = _Short()


def show(value: object) -> str:
    r"""Write a value for a message: a ``repr`` of at most some hundred characters.

    Examples
    --------
    >>> show("x" * 1000)
    "'xxxxxxxxxxxxxxxxxxxxxxxxxxx...xxxxxxxxxxxxxxxxxxxxxxxxxxxx'"
    >>> show(16**5000)
    'a whole number of about 6021 digits'
    >>> show("\033[2J")
    "'\\x1b[2J'"
    """
    if type(value) is str and len(value) <= _short.maxstring:
        plain = repr(value)
        if len(plain) <= _short.maxstring:  # what follows takes ten times as long to say the same
            return plain
    return _short.repr(value)


def one_line(text: str, most: int = _MOST_CHARACTERS) -> str:
    r"""Escape what is not printable, line breaks too, and cut out the middle of a long text.

    Examples
    --------
    >>> one_line("layer 1\r\nerror: fake")
    'layer 1\\r\\nerror: fake'
    """
    if len(text) > most:
        left_out = len(text) - most
        text = f"{text[: most // 2]} ... ({left_out} characters) ... {text[-(most // 2) :]}"
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii")
        for c in text
    )


def printable(text: str, most: int = 100 * _MOST_CHARACTERS, indent: str = "  ") -> str:
    r"""As :func:`one_line`, of a message that may have several lines of its own.

    Lines after the first are indented, so that none can pass for another message.

    Examples
    --------
    >>> printable("deadlock\nsys[0] finished\x07")
    'deadlock\n  sys[0] finished\\x07'
    """
    if len(text) > most:
        text = f"{text[: most // 2]}\n... ({len(text) - most} characters)\n{text[-(most // 2) :]}"
    first, *rest = text.split("\n")
    lines = [line if line.startswith(indent) else indent + line for line in rest]
    return "\n".join([one_line(line) for line in [first, *lines]]).rstrip()


def nearest(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the most similar known name, or an empty string."""
    import difflib  # only errors need it

    by_lower = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return f"; did you mean {by_lower[found[0]]!r}?" if found else ""
