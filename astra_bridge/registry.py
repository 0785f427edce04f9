# SPDX-License-Identifier: MIT
"""Name -> specification, for everything that is chosen by name.

There is one :class:`Registry` for each kind of thing: network backends, collective algorithms,
compute models and so on (``astra_bridge.registries`` has them all).  Built-in ones are named in a
table and imported when they are asked for; a package plugs in its own under an entry-point group;
a program adds its own with :meth:`Registry.add`.  What differs between two things of a kind is data
of their specifications: no code asks for a name.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from functools import cache, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

from astra_bridge import process
from astra_bridge.errors import AstraBridgeError, InputError, MissingDependency, PluginError
from astra_bridge.records import Record, replace
from astra_bridge.text import nearest, one_line, show

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["Registry", "Spec"]


def own_version() -> str:
    """That of this package, which most specifications are part of."""
    import astra_bridge

    return astra_bridge.__version__


class _Told(Record, frozen=True, eq=False, kw_only=True):
    unavailable: Callable[[], str | None] = lambda: None
    note: Callable[[], str] = lambda: ""
    version: Callable[[], str] = own_version


class Spec(_Told, frozen=True, eq=False):
    """What can be chosen by name.

    Attributes
    ----------
    name : str
        As in files and on the command line.
    summary : str
        One sentence for people.
    unavailable : function of nothing, giving str or None
        None where it can be used here, else why not and what to do about it.
    note : function of nothing, giving str
        What else ``astra-bridge doctor`` says of it where it can be used.
    version : function of nothing, giving str
        Of what decides the numbers; of a plug-in, its package's unless it says otherwise.
    unguarded : tuple of str
        Of the class: fields whose faults are told apart elsewhere.
    """

    unguarded: ClassVar[tuple[str, ...]] = ()

    name: str
    summary: str


S = TypeVar("S", bound=Spec)


@cache
def _entry_points(group: str) -> tuple[EntryPoint, ...]:
    # Imported here: looking into installed packages is slow, and what is built in needs it not.
    from importlib.metadata import entry_points

    return tuple(entry_points(group=group))


class Registry(Generic[S]):
    """The things of one kind, by name.

    Attributes
    ----------
    kind : str
        What they are, for messages: "compute model".
    group : str
        Entry-point group under which packages plug in their own.
    spec : type
        Class of their specifications.
    built_in : mapping of str to str
        Name -> "module:ATTRIBUTE", which is a specification or a tuple of them.
    former : mapping of str to str
        A name that is no more -> what to type instead, as a sentence.
    loaded : dict
        Name -> specification, of those that have been asked for or added.

    Examples
    --------
    >>> found = Registry("colour", "example.colours", Spec, {})
    >>> found.add(Spec("teal", "Between green and blue."))
    >>> found.find("teal", key="paint").summary
    'Between green and blue.'
    >>> found.find("tael", key="paint")
    Traceback (most recent call last):
        ...
    astra_bridge.errors.InputError: paint: 'tael' is not allowed; allowed: teal; did you mean \
'teal'?
    """

    def __init__(
        self, kind: str, group: str, spec: type[S], built_in: Mapping[str, str],
        former: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.kind, self.group, self.spec, self.built_in = kind, group, spec, built_in
        self.former = former or {}
        self.loaded: dict[str, S] = {}

    def names(self) -> list[str]:
        """All known names: built in, plugged in and added."""
        plugged_in = (entry.name for entry in _entry_points(self.group))
        return list(dict.fromkeys([*self.built_in, *plugged_in, *self.loaded]))

    def add(self, spec: S) -> None:
        """Make a specification known to this process under its name.

        Raises
        ------
        InputError
            It is of another class, or the name is taken.
        """
        if not isinstance(spec, self.spec):
            raise InputError(f"{show(spec)} is not a {self.spec.__name__}", key=self.kind)
        if spec.name in self.names():
            raise InputError(f"there is a {self.kind} {show(spec.name)} already", key=self.kind)
        self.loaded[spec.name] = spec

    def is_added(self, name: str) -> bool:
        """Whether only this process knows the name: another one cannot be told it."""
        if name not in self.loaded or name in self.built_in:
            return False
        return all(entry.name != name for entry in _entry_points(self.group))

    def get(self, name: str) -> S | None:
        """The specification of this name, or None.

        Raises
        ------
        MissingDependency
            It has been left out of this installation.
        PluginError
            The package that plugs it in cannot be imported, or names something else.
        """
        if name not in self.loaded:
            if name in self.built_in:
                self.loaded[name] = self._built_in(name)
            else:
                for entry in _entry_points(self.group):
                    if entry.name == name:
                        self.loaded[name] = self._plugged_in(entry)
                        break
        return self.loaded.get(name)

    def find(self, name: object, *, key: str, file: str | Path | None = None) -> S:
        """The specification of this name.

        Parameters
        ----------
        name
            What the user wrote.
        key, file
            Where, for the message.

        Raises
        ------
        InputError
            Nothing has this name; says which names there are, and the nearest.
        MissingDependency, PluginError
            As :meth:`get`.
        """
        found = self.get(name) if isinstance(name, str) else None
        if found is None and isinstance(name, str) and name in self.former:
            raise InputError(f"{show(name)} is no more; {self.former[name]}", file=file, key=key)
        if found is None:
            raise self.refusal(name, key=key, file=file)
        return found

    def refusal(
        self, name: object, *, key: str, file: str | Path | None = None, more: str = ""
    ) -> InputError:
        """The error for a name that is not known; ``more`` follows the names that are."""
        names = self.names()
        hint = nearest(name, names) if isinstance(name, str) else ""
        return InputError(
            f"{show(name)} is not allowed; allowed: {', '.join(names)}{more}{hint}",
            file=file,
            key=key,
        )

    def _built_in(self, name: str) -> S:
        module, _, attribute = self.built_in[name].partition(":")
        try:
            found = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            raise MissingDependency(
                f"{self.kind} {name!r} is not part of this installation: {error}"
            ) from error
        return cast("S", next(s for s in found if s.name == name) if _several(found) else found)

    def _plugged_in(self, entry: EntryPoint) -> S:
        who = f"plug-in {self.kind} {entry.name!r}"
        process.share()
        found = _guarded(who, entry.load)()
        if _several(found):
            found = next((s for s in found if getattr(s, "name", None) == entry.name), None)
        if not isinstance(found, self.spec):
            raise PluginError(f"{who}: {entry.value} is not a {self.spec.__name__}")
        guarded: dict[str, Any] = {
            name: _guarded(who, getattr(found, name))
            for name in found.__struct_fields__
            if callable(getattr(found, name)) and name not in found.unguarded
        }
        if found.version is own_version and entry.dist is not None:
            version = f"{entry.dist.name} {entry.dist.version}"
            guarded["version"] = lambda: version
        return replace(found, **guarded)


def _several(found: object) -> bool:
    return isinstance(found, tuple)


def _guarded(who: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Whatever the code of a plug-in raises is the plug-in's fault, and says so."""

    @wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        try:
            return function(*arguments, **named)
        except AstraBridgeError:
            raise
        except Exception as error:
            what = one_line(f"{type(error).__name__}: {error}")
            raise PluginError(f"{who}: {what}") from error

    return call
