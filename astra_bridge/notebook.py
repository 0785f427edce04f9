# SPDX-License-Identifier: MIT
"""What notebooks show of an object: small pieces of HTML, which need no styles and no scripts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from astra_bridge.text import one_line

__all__ = ["bar", "card", "escaped", "table"]

_COLOURS = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#a463f2", "#97bbf5")
_LONGEST = 80


def escaped(text: str) -> str:
    """Text as HTML has to have it.

    Examples
    --------
    >>> escaped("a < b")
    'a &lt; b'
    """
    import html  # a millisecond that a run whose result nobody looks at need not pay

    return html.escape(text)


def card(title: str, *parts: str) -> str:
    """A title above pieces; those that are "" are left out."""
    return f"<div><b>{escaped(one_line(title, 200))}</b>{''.join(parts)}</div>"


def table(header: Sequence[str], rows: Iterable[Sequence[object]], caption: str = "") -> str:
    """A table, whose cells are escaped, made one line and shortened.

    Examples
    --------
    >>> table(["a"], [["<b>"]])
    '<table><thead><tr><th>a</th></tr></thead><tbody><tr><td>&lt;b&gt;</td></tr></tbody></table>'
    """

    def line(tag: str, cells: Sequence[object]) -> str:
        said = (escaped(one_line(str(cell), _LONGEST)) for cell in cells)
        return f"<tr>{''.join(f'<{tag}>{cell}</{tag}>' for cell in said)}</tr>"

    head = f"<thead>{line('th', header)}</thead>" if header else ""
    said = f"<caption>{escaped(caption)}</caption>" if caption else ""
    return f"<table>{said}{head}<tbody>{''.join(line('td', row) for row in rows)}</tbody></table>"


def bar(parts: Sequence[tuple[str, float, str]]) -> str:
    """One bar of parts, with a legend: names, shares of the whole, and what to say of each."""
    x, rects, legend = 0.0, [], []
    for at, (name, share, said) in enumerate(parts):
        colour = _COLOURS[at % len(_COLOURS)]
        words = escaped(f"{one_line(name, _LONGEST)}: {said}")
        rects.append(
            f'<rect x="{600 * x:.1f}" y="0" width="{600 * share:.1f}" height="16" fill="{colour}">'
            f"<title>{words}</title></rect>"
        )
        legend.append(f'<span style="color:{colour}" aria-hidden="true">■</span> {words}')
        x += share
    return (
        '<svg width="600" height="16" viewBox="0 0 600 16" role="img" style="max-width:100%">'
        f"{''.join(rects)}</svg><p>{' &ensp; '.join(legend)}</p>"
    )
