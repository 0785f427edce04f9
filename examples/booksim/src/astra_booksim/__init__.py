# SPDX-License-Identifier: MIT
"""BookSim 2 as a network backend: its own files, or the networks of astra_bridge."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from math import ceil, prod
from pathlib import Path

from astra_bridge.arguments import number_text, whole_text
from astra_bridge.errors import BackendUnavailable, InputError
from astra_bridge.network.api import NetworkConfig
from astra_bridge.network.compiled import Adapter, Simulator
from astra_bridge.network.native import NativeNetwork, prepare_links
from astra_bridge.network.spec import BackendSpec, NetworkRequest, Prepared


def find() -> Simulator:
    """BookSim's sources, under ``BOOKSIM_ROOT``; they need not have been built."""
    given = os.environ.get("BOOKSIM_ROOT", "")
    source = Path(given).resolve() / "src"
    if not given or not (source / "trafficmanager.cpp").is_file():
        raise BackendUnavailable("set BOOKSIM_ROOT to a checkout of BookSim 2")
    marks = tuple(sorted(source.glob("**/*.[ch]pp")))
    defines = {"BOOKSIM_ROOT": str(source.parent)}
    return Simulator("BookSim", "2", source.parent, "BOOKSIM_ROOT", marks, defines)


ADAPTER = Adapter("booksim", find, sources=Path(__file__).parent / "adapter")


def read_settings(path: Path) -> dict[str, str]:
    """A file of BookSim: ``key = value;`` and comments behind ``//``."""
    try:
        text = re.sub("//.*", "", path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {error}", file=path) from None
    pairs = [one.partition("=")[::2] for one in text.split(";") if one.strip()]
    settings = {key.strip(): value.strip() for key, value in pairs}
    if not settings or "" in settings or "" in settings.values():
        raise InputError("is no file of BookSim: key = value; ...", file=path)
    return settings


def dimensions(settings: dict[str, str], path: Path) -> tuple[int, ...]:
    """Ranks of a topology, by dimension where it has any."""
    topology = settings.get("topology", "torus")
    k, n, c = (
        whole_text(1, 1 << 20)(settings.get(key, default), f"{path}: {key}")
        for key, default in (("k", "8"), ("n", "2"), ("c", "1"))
    )
    if n > 20 or k**n * c > 1 << 20:
        raise InputError(f"k={k}, n={n}: at most 2^20 ranks", file=path)
    known: dict[str, tuple[int, ...]]
    known = {"mesh": (k,) * n, "torus": (k,) * n, "fly": (k**n,), "fattree": (k**n,)}
    known |= {"cmesh": (c * k**n,), "flatfly": (c * k**n,)}
    if topology not in known:
        raise InputError(
            f"topology={topology} is not allowed; allowed: {', '.join(known)}", file=path
        )
    return known[topology]


def prepare(request: NetworkRequest) -> Prepared:
    """A file of BookSim, or links, all of one rate, which become BookSim's ``anynet``."""
    path = request.network
    if isinstance(path, (str, Path)) and Path(path).suffix not in (".yml", ".yaml"):
        settings = read_settings(Path(path)) | dict(request.options)
        dims = dimensions(settings, Path(path))
        ranks = prod(dims)
        return Prepared(NetworkConfig(ranks, ranks, options=settings), dims)
    prepared = prepare_links(request)
    links = prepared.config.links
    rates = set(links["bytes_per_second"].tolist())
    if len(rates) != 1:
        raise InputError(
            f"links of {len(rates)} rates; those of BookSim all have one", key="network"
        )
    options = {"topology": "anynet", "routing_function": "min", "flit_bytes": "64"}
    options |= request.options
    flit_bytes = whole_text(1, 1 << 20)(options["flit_bytes"], "flit_bytes")
    options.setdefault("cycle_ps", repr(flit_bytes * 1e12 / rates.pop()))
    cycle_ps = number_text(1, 1e9)(options["cycle_ps"], "cycle_ps")
    cycles = [max(1, ceil(latency / cycle_ps)) for latency in links["latency_ps"].tolist()]
    if max(cycles) > 100_000:
        raise InputError(f"a link of {max(cycles)} cycles; at most 100000", key="network")
    # Room for what arrives until the first credit is back, in 16 virtual channels.
    options.setdefault("vc_buf_size", str((2 * max(cycles) + 32) // 16 + 16))
    rows = [f"router {node} node {node}" for node in range(prepared.config.endpoints)]
    ends = zip(links["src"].tolist(), links["dst"].tolist(), cycles, strict=True)
    rows += [f"router {src} router {dst} {cycles}" for src, dst, cycles in ends]
    options["anynet"] = "\n".join(rows)
    return replace(prepared, config=replace(prepared.config, options=options))


BACKEND = BackendSpec(
    "booksim",
    "BookSim 2, cycle by cycle: routers with virtual channels, of its own files.",
    prepare,
    lambda config: NativeNetwork.open(ADAPTER.library(), config),
    library=ADAPTER.library,
    make_ready=ADAPTER.library,
    unavailable=ADAPTER.unavailable,
    note=ADAPTER.note,
    version=ADAPTER.version,
)
