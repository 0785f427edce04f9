# SPDX-License-Identifier: MIT
"""How records (`astra_bridge.records`) are made, for the reference, which knows dataclasses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import griffe

RECORD = "astra_bridge.records.Record"
BY_NAME = griffe.ParameterKind.keyword_only


class Records(griffe.Extension):
    """Gives each record the ``__init__`` that msgspec makes of its fields."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        for one in list(classes(pkg)):
            above = [base for base in reversed(one.mro()) if is_record(base)]
            if above or is_record(one):
                parameters = {
                    member.name: parameter(member, each.keywords.get("kw_only") == "True")
                    for each in (*above, one)
                    for member in each.members.values()
                    if is_field(member)
                }
                ordered = sorted(parameters.values(), key=lambda p: p.kind is BY_NAME)
                parts = griffe.Parameters(*ordered)
                one.set_member(
                    "__init__", griffe.Function("__init__", parent=one, parameters=parts)
                )


def classes(where: griffe.Module | griffe.Class) -> Iterator[griffe.Class]:
    for member in where.members.values():
        if not member.is_alias and (member.is_module or member.is_class):
            if isinstance(member, griffe.Class) and "__init__" not in member.members:
                yield member
            yield from classes(member)


def is_record(one: griffe.Class) -> bool:
    bases = [getattr(base, "canonical_path", str(base)) for base in one.bases]
    return RECORD in bases or any(is_record(base) for base in one.mro())


def is_field(member: Any) -> bool:
    return (
        member.is_attribute
        and member.annotation is not None
        and "property" not in member.labels
        and "instance-attribute" in member.labels
    )


def parameter(member: Any, by_name: bool) -> griffe.Parameter:
    default = member.value
    if isinstance(default, griffe.ExprCall) and str(default.function) == "field":
        given = {one.name: one.value for one in default.arguments}
        default = griffe.ExprCall(given["default_factory"], [])
    return griffe.Parameter(
        member.name,
        annotation=member.annotation,
        kind=BY_NAME if by_name else griffe.ParameterKind.positional_or_keyword,
        default=default,
    )
