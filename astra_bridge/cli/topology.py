# SPDX-License-Identifier: MIT
"""``astra-bridge topology``: a command for each fabric, and ``convert``."""

from __future__ import annotations

import inspect
import math
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

from astra_bridge.arguments import number_text, path, whole_text
from astra_bridge.cli.command import Argument, Command, group_of, one_of
from astra_bridge.errors import InputError
from astra_bridge.fabrics import dragonfly, fat_tree, hgx, leaf_spine, rail, torus
from astra_bridge.fabrics.convert import FORMATS, read_topology
from astra_bridge.fabrics.infragraph import infragraph_text
from astra_bridge.fabrics.summary import cables_of, tiers_of
from astra_bridge.files import write_file
from astra_bridge.inputs.network import ROUTINGS, NetworkLinks, network_text
from astra_bridge.records import replace
from astra_bridge.text import show

__all__ = ["COMMAND"]


def _sizes(text: str, name: str) -> tuple[int, ...]:
    """Sizes as 8,64 or 8x64."""
    words = re.split("[,x]", text)
    if not all(re.fullmatch("0*[1-9][0-9]{0,7}", word) for word in words):
        raise InputError(f"{show(text)} is not allowed; allowed: sizes such as 8,64", key=name)
    return tuple(map(int, words))


# Parameter of a fabric -> what --help calls its value, and says of it.
_ROWS = {
    "gpus": ("COUNT", "GPUs in all."),
    "gpus_per_host": ("COUNT", "GPUs of a host, each with a port of its own to the network."),
    "rails": ("COUNT", "GPU g of a host is on rail g modulo this."),
    "rail_only": ("", "No cable joins two rails: each has spines of its own, if it needs any."),
    "planes": ("COUNT", "Copies of the network that share the bandwidth of a port."),
    "oversubscription": ("RATIO", "Bandwidth of a full leaf towards hosts over that upwards."),
    "radix": ("PORTS", "Ports of a switch."),
    "hosts_per_leaf": ("COUNT", "Hosts of a full leaf."),
    "spines": ("COUNT", "Spines, of each plane."),
    "gpus_per_router": ("COUNT", "GPUs of a router."),
    "routers_per_group": ("COUNT", "Routers of a group."),
    "global_links": ("COUNT", "Cables of a router to other groups."),
    "nvswitches": ("COUNT", "NVSwitch chips of a host."),
    "dims": ("SIZES", "GPUs along each dimension, such as 4,4,4."),
    "nic_gbps": ("GBPS", "Bandwidth of a GPU's port."),
    "uplink_gbps": ("GBPS", "Bandwidth of a cable between leaf and spine."),
    "nvlink_gbps": ("GBPS", "Bandwidth of a GPU to the NVSwitch of its host; 0: there is none."),
    "latency_ns": ("NS", "Time to cross a cable of the network."),
    "nvlink_latency_ns": ("NS", "Time to cross a cable of a host."),
    "global_latency_ns": ("NS", "Time to cross a cable between groups."),
}
# Defaults that are None.
_OTHERWISE = {
    "gpus": "the product of --dims",
    "gpus_per_host": "8, or all",
    "rails": "one per GPU of a host",
    "hosts_per_leaf": "as many as evenly fill the fewest leaves",
    "spines": "one for each uplink of a leaf",
    "gpus_per_router": "the fewest that suffice",
    "routers_per_group": "twice the GPUs of a router",
    "global_links": "the GPUs of a router",
    "dims": "three, close to each other",
    "uplink_gbps": "that of a port",
    "global_latency_ns": "--latency-ns",
}
_RADIX = {rail: "64, or the power of two that suffices", fat_tree: "the fewest that suffice"}
_KINDS: dict[str, tuple[Callable[..., NetworkLinks], str]] = {
    "rail": (rail, "--gpus 512 --hosts-per-leaf 32 -o rail.yml"),
    "leaf-spine": (leaf_spine, "--gpus 256 --oversubscription 2 -o leaf.yml"),
    "fat-tree": (fat_tree, "--gpus 1024 -o fat_tree.yml"),
    "dragonfly": (dragonfly, "--gpus 1056 --gpus-per-host 4 -o dragonfly.yml"),
    "torus": (torus, "--dims 4,4,4 -o torus.yml"),
    "hgx": (hgx, "--gpus 16 -o hgx.yml"),
}
_NUMBERS = {
    int: whole_text(-(2**63), 2**63 - 1),
    float: number_text(-1e300, 1e300),
}
_OUTPUT = (
    Argument("--output", "FILE", "Write the network there.", path, otherwise="print it",
             short="-o"),
    Argument("--drawing", "FILE", "Draw the tiers there: .svg, .png, .pdf (matplotlib).", path),
    Argument("--to", "FORMAT", "links or infragraph.", one_of("links", "infragraph"),
             default="links"),
    Argument("--routing", "NAME", "How one of several equally short ways is chosen: "
             f"{', '.join(ROUTINGS)}.", one_of(*ROUTINGS)),
)  # fmt: skip
_DIMS = Argument(
    "--dims", "SIZES", "Logical dimensions for hierarchical collectives, such as 8,64.", _sizes,
    otherwise="GPUs per host, hosts",
)  # fmt: skip


def _row(kind: Callable[..., NetworkLinks], parameter: inspect.Parameter, hint: Any) -> Argument:
    """A parameter of a fabric as a flag."""
    name, value = parameter.name, parameter.default
    missing = value is inspect.Parameter.empty
    if hint is bool:
        return Argument(f"--{name.replace('_', '-')}", *_ROWS[name], default=value)
    check = next((check for one, check in _NUMBERS.items() if one in _types(hint)), _sizes)
    otherwise = _RADIX.get(kind, _RADIX[rail]) if name == "radix" else _OTHERWISE.get(name, "")
    return Argument(
        f"--{name.replace('_', '-')}", *_ROWS[name], check, default=None if missing else value,
        otherwise=otherwise if value is None else "", required=missing,
    )  # fmt: skip


def _types(hint: Any) -> tuple[Any, ...]:
    return (hint, *getattr(hint, "__args__", ()))


def _command(name: str, kind: Callable[..., NetworkLinks], example: str) -> Command:
    hints = get_type_hints(kind)
    rows = [_row(kind, one, hints[key]) for key, one in inspect.signature(kind).parameters.items()]
    own = {row.key for row in rows}

    def run(
        output: Path | None, drawing: Path | None, to: str, routing: str | None, **given: Any
    ) -> None:
        said = [
            f"--{key.replace('_', '-')} {_said(value)}".rstrip()
            for key, value in given.items()
            if value != next((row.default for row in rows if row.key == key), None)
        ]
        said += [f"--routing {routing}"] if routing else []
        dims = given["dims"] if "dims" not in own else None
        try:
            network = kind(**{key: value for key, value in given.items() if key in own})
        except InputError as error:
            flag = f"--{error.key.replace('_', '-')}" if error.key else None
            raise InputError(error.reason, key=flag) from None
        comment = f"astra-bridge topology {' '.join([name, *said])}"
        _write(network, output, drawing, to, routing, dims, comment)

    document = inspect.getdoc(kind) or ""
    return Command(
        document.partition("\n")[0],
        {"fabric": [*rows, *([] if "dims" in own else [_DIMS])], "output": _OUTPUT},
        run,
        f"topology {name} {example}",
        work="making the fabric",
    )


def _said(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return "" if value is True else repr(value).removesuffix(".0")


def _write(
    network: NetworkLinks,
    output: Path | None,
    drawing: Path | None,
    to: str,
    routing: str | None,
    dims: tuple[int, ...] | None,
    comment: str,
) -> None:
    if dims is not None and math.prod(dims) != network.endpoints:
        raise InputError(
            f"{_product(dims)} is not allowed; allowed: sizes whose product is the "
            f"{network.endpoints} GPUs",
            key="--dims",
        )
    network = replace(network, dims=dims or network.dims, routing=routing or network.routing)
    text = infragraph_text(network) if to == "infragraph" else network_text(network, comment)
    if output is None or str(output) == "-":
        print(text, end="")
    else:
        write_file(output, text.encode())
    if drawing is not None:
        from astra_bridge.fabrics.drawing import draw_topology

        draw_topology(network, drawing)
    if output is not None and str(output) != "-":
        print(f"wrote {output}: {network.endpoints} GPUs, dimensions {_product(network.dims)}")
        for tier, count in tiers_of(network).items():
            print(f"  {count} {tier}")
        for one in cables_of(network):
            print(f"  {one.lower}-{one.upper}: {one}")


def _product(dims: tuple[int, ...]) -> str:
    return " x ".join(map(str, dims))


def _convert(
    file: Path,
    source: str | None,
    default_gbps: float | None,
    default_latency_ns: float,
    output: Path | None,
    drawing: Path | None,
    to: str,
    routing: str | None,
    dims: tuple[int, ...] | None,
) -> None:
    try:
        network = read_topology(
            file, source, default_gbps=default_gbps, default_latency_ns=default_latency_ns
        )
    except InputError as error:
        if error.key not in ("default_gbps", "default_latency_ns"):
            raise
        raise InputError(error.reason, key=f"--{error.key.replace('_', '-')}") from None
    comment = shlex.join(["astra-bridge", "topology", "convert", str(file)])
    _write(network, output, drawing, to, routing, dims, comment)


_CONVERT = Command(
    "Convert a topology: links, InfraGraph, SimAI's file, htsim's .topo.",
    {
        "arguments": (Argument("FILE", "", "What to convert.", path),),
        "input": (
            Argument("--from", "FORMAT", f"{', '.join(FORMATS)}.", one_of(*FORMATS),
                     otherwise="found from the content"),
            Argument("--default-gbps", "GBPS", "Bandwidth of links of an InfraGraph that say "
                     "none.", number_text(-1e300, 1e300)),
            Argument("--default-latency-ns", "NS", "Latency of links of an InfraGraph that say "
                     "none.", number_text(-1e300, 1e300), default=0.0),
        ),
        "output": (*_OUTPUT, _DIMS),
    },
    lambda **given: _convert(source=given.pop("from"), **given),
    "topology convert spectrum_x.txt -o spectrum_x.yml",
    work="converting the topology",
)  # fmt: skip

COMMAND = group_of(
    "Write the fabric of a cluster as a network file; convert those of others.",
    {
        **{name: _command(name, kind, example) for name, (kind, example) in _KINDS.items()},
        "convert": _CONVERT,
    },
)
