# SPDX-License-Identifier: MIT
"""Input files: one module per format, each giving frozen dataclasses.

Every reader takes a path, the file's content as a mapping, or an already read object, and raises
:class:`astra_bridge.errors.InputError` for whatever is wrong with it.
"""
