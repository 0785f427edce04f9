# SPDX-License-Identifier: MIT
"""Python objects as bytes that can be read back without trust.

Only plain values and the classes that the reader names are made of them, so that no code of the
bytes' own runs; damage, and the state of something else, are found before anything is read.
"""

from __future__ import annotations

import io
import pickle
from collections import deque
from collections.abc import Iterable
from typing import Any

__all__ = ["seal", "unseal"]

_MAGIC = b"astra-bridge state 1\n"
_DIGEST_BYTES = 16


def seal(state: Any, owner: str) -> bytes:
    """A state as bytes.

    Parameters
    ----------
    state
        Plain values and objects with ``__slots__`` or a ``__dict__``, in any shape.
    owner : str
        What it belongs to.

    Examples
    --------
    >>> unseal(seal([1, {"a": 2}], "mine"), "mine")
    [1, {'a': 2}]
    >>> unseal(seal([1], "mine"), "yours")
    Traceback (most recent call last):
        ...
    ValueError: the saved bytes are those of another configuration or version
    """
    body = pickle.dumps(state, protocol=4)
    return _MAGIC + _digest(owner.encode()) + _digest(body) + body


def unseal(data: bytes, owner: str, classes: Iterable[type] = ()) -> Any:
    """What was sealed.

    Raises
    ------
    ValueError
        The bytes are damaged, belong to something else, or hold what no state holds.
    """
    head = len(_MAGIC) + 2 * _DIGEST_BYTES
    if len(data) < head or not data.startswith(_MAGIC):
        raise ValueError("these are no saved bytes, or they are cut off")
    of, digest = data[len(_MAGIC) : head - _DIGEST_BYTES], data[head - _DIGEST_BYTES : head]
    body = data[head:]
    if digest != _digest(body):
        raise ValueError("the saved bytes are damaged")
    if of != _digest(owner.encode()):
        raise ValueError("the saved bytes are those of another configuration or version")
    try:
        return _Reader(body, classes).load()
    except Exception as error:  # a pickle may raise anything
        raise ValueError(f"the saved bytes hold no state: {error}") from None


def _digest(data: bytes) -> bytes:
    import hashlib  # few states are saved

    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()


class _Reader(pickle.Unpickler):
    def __init__(self, body: bytes, classes: Iterable[type]) -> None:
        super().__init__(io.BytesIO(body))
        self._classes = {(one.__module__, one.__qualname__): one for one in (deque, *classes)}

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._classes[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} is no part of it") from None
