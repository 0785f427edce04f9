# SPDX-License-Identifier: MIT
"""The backend: ASTRA-sim's files, or ours, become what the compiled library takes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astra_bridge.errors import InputError
from astra_bridge.inputs.network import NetworkDims, NetworkLinks, dim_bandwidth, read_network
from astra_bridge.network.api import LINK, Network, NetworkConfig
from astra_bridge.network.native import NativeNetwork
from astra_bridge.network.ns3.build import NS3, is_rdma_fork
from astra_bridge.network.ns3.config import (
    CC_MODES,
    Ns3Config,
    is_ns3_config,
    read_ns3_config,
    topology_path,
)
from astra_bridge.network.ns3.topologies import (
    PhysicalTopology,
    check_ways,
    read_logical_topology,
    read_physical_topology,
)
from astra_bridge.network.spec import BackendSpec, NetworkRequest, Prepared
from astra_bridge.topology import links_of_dims, topology_of
from astra_bridge.units import PS_PER_S, PS_PER_US

__all__ = ["BACKENDS", "COMPATIBILITY", "prepare"]

COMPATIBILITY = {
    # Times are whole nanoseconds.
    "tick_ps": "1000",
    # PPP 2, IPv4 20, UDP 8, sequence and priority 6; an acknowledgement is 48 bytes, a pause 31.
    "header_bytes": "36",
    "ack_bytes": "48",
    "pause_bytes": "31",
    # A transfer ends when its sender has seen the last acknowledgement.
    "completion": "ack",
    # Neighbours, random numbers and wake-ups in the order of the fork.
    "order": "astra-sim",
    # HPCC's telemetry in the units of its header field.
    "telemetry_exact": "false",
    # Three delays' worth of bytes, whatever the packet size.
    "headroom_factor": "3",
    "headroom_extra_bytes": "0",
    # A queue pair for each message, and the packets and switches of its time.
    "queue_pairs": "0",
    "loss_recovery": "go-back-n",
    "mtu_bytes": "1000",
    "ack_interval_bytes": "1",
    "buffer_bytes": str(32 << 20),
}
"""What ``compatibility=fork`` sets: how the public RDMA fork of ns-3 differs from RoCEv2."""

_FORK_DCQCN = {"cc.AdditiveRate": "40000000", "cc.HyperRate": "400000000"}
"""Of a network without a config.txt, which would say them."""

_BACK_TO_ZERO = {"queue_pairs": "0", "loss_recovery": "go-back-n"}
"""What going back to the beginning of a chunk needs."""

_NEVER_BYTES = 10**15
"""A queue that never is so long."""

_TELEMETRY_BYTES = {"hpcc": 42, "timely": 8, "hpcc-pint": 2}
_NOT_WRITTEN = (
    "FCT_OUTPUT_FILE",
    "PFC_OUTPUT_FILE",
    "QLEN_MON_FILE",
    "TRACE_OUTPUT_FILE",
)


def prepare(request: NetworkRequest) -> Prepared:
    """Read ASTRA-sim's ns-3 files, or the analytical networks' YAML.

    Raises
    ------
    InputError
        A file, key or value is not understood, or the logical topology does not fit.
    """
    network: Any = request.network
    given = dict(request.options)
    config: Ns3Config | None = None
    parsed: NetworkDims | NetworkLinks | None = None
    physical: PhysicalTopology | None = None
    dims: tuple[int, ...] | None = None
    counts: tuple[int, ...] = ()
    fork = is_rdma_fork()
    compatibility, warnings = _compatibility(given, is_config=_names_config(network), fork=fork)
    if _names_config(network):
        config, more = read_ns3_config(network)
        warnings += more
        physical = read_physical_topology(request.physical_topology or topology_path(config))
        options, more = _options_of(config, compatibility, given.get("congestion_control"))
        warnings += more
        endpoints, nodes, links, ids = _graph_of(physical, config.error_rate_per_link)
        if ids is not None:
            options["node_ids"] = ",".join(map(str, ids))
        options |= _faults(config, physical, links, nodes, ids)
        if compatibility:
            options["streams_taken"] = str(_streams_taken(physical))
            # Each cable with a loss of its own draws from a stream of its own.
            options["own_loss"] = ",".join(
                f"{2 * index}:{2 * index + 1}"
                for index, link in enumerate(physical.links)
                if link.loss > 0
            )
        if config.enable_qcn:
            options["ecn_map"] = _ecn_map(config, physical)
        if fork:
            options |= _of_the_fork_only(config)
    else:
        options = _fork_options(given) if compatibility else {}
        parsed = read_network(network)
        dims = parsed.npus_count if isinstance(parsed, NetworkDims) else parsed.dims
        if request.physical_topology is not None:
            physical = read_physical_topology(request.physical_topology)
            endpoints, nodes, links, ids = _graph_of(physical, 0.0)
            if ids is not None:
                options["node_ids"] = ",".join(map(str, ids))
            if math.prod(dims) > endpoints:
                raise InputError(
                    f"the network file has {math.prod(dims)} ranks, but the physical topology "
                    f"{endpoints} endpoints",
                    file=request.physical_topology,
                )
        else:
            endpoints, nodes, links, forwards = _graph_of_network(parsed)
            counts = links_of_dims(parsed)
            if forwards:
                options["endpoints_forward"] = "true"
            if isinstance(parsed, NetworkLinks) and parsed.routing != "ecmp":
                options["routing"] = parsed.routing
    if request.logical_topology is not None:
        dims = read_logical_topology(request.logical_topology, endpoints)
    options |= given
    dims = (endpoints,) if dims is None else dims
    if physical is not None and "endpoints_forward" not in given:
        check_ways(physical, math.prod(dims))
    if math.prod(dims) < endpoints:
        warnings += (f"{math.prod(dims)} ranks use the first of {endpoints} endpoints",)
    return Prepared(
        NetworkConfig(endpoints, nodes, links, options),
        dims,
        warnings,
        receives_at_once=compatibility,
        dim_bandwidth=None if parsed is None else dim_bandwidth(parsed, dims),
        names=() if parsed is None else parsed.names,
        links_of_dims=counts,
    )


def _names_config(network: object) -> bool:
    return isinstance(network, (str, Path)) and is_ns3_config(network)


def _compatibility(
    given: dict[str, str], *, is_config: bool, fork: bool
) -> tuple[bool, tuple[str, ...]]:
    """Takes the option out, for it stands for others: whether it is the fork's, and warnings."""
    tcp = given.get("transport") == "tcp"
    value = given.pop("compatibility", "fork" if is_config or (fork and not tcp) else "none")
    if value == "astra-sim":
        return True, ("compatibility=astra-sim is called compatibility=fork now",)
    if value not in ("fork", "none"):
        raise InputError(f"compatibility={value}: must be fork or none", key="--network-option")
    if value == "none" and fork and not tcp:
        raise InputError(
            f"compatibility=none: {NS3.version()} at {NS3.find().root} is used with its own "
            "devices, which are the fork's; leave NS3_ROOT out for ours",
            key="--network-option",
        )
    return value == "fork", ()


def _fork_options(given: dict[str, str]) -> dict[str, str]:
    dcqcn = given.setdefault("congestion_control", "dcqcn") == "dcqcn"
    return {**COMPATIBILITY, **(_FORK_DCQCN if dcqcn else {})}


def _flag(value: bool) -> str:
    return "true" if value else "false"


def _options_of(
    config: Ns3Config, compatibility: bool, control: str | None
) -> tuple[dict[str, str], tuple[str, ...]]:
    """What a config.txt says, for its CC_MODE or the congestion control that stands in for it."""
    file = config.source
    warnings = []
    if control is None and config.cc_mode not in CC_MODES:
        known = ", ".join(f"{mode} {name}" for mode, name in CC_MODES.items())
        warnings.append(f"{file}: CC_MODE {config.cc_mode}: no congestion control; known: {known}")
    who = f"congestion_control={control}" if control else f"CC_MODE {config.cc_mode}"
    control = control or CC_MODES.get(config.cc_mode, "none")
    options = dict(COMPATIBILITY) if compatibility else {}
    extra = _TELEMETRY_BYTES.get(control, 0)
    if compatibility:
        options["header_bytes"] = str(36 + extra)
        options["ack_bytes"] = str(22 + max(26, 12 + extra))
        options["telemetry_multiple"] = str(config.int_multi)
    elif extra:
        options["header_bytes"] = str(82 + extra)
        options["ack_bytes"] = str(86 + extra)
    options |= {
        "congestion_control": control,
        "mtu_bytes": str(config.packet_payload_size),
        "chunk_bytes": str(config.l2_chunk_size),
        "ack_interval_bytes": str(config.l2_ack_interval),
        "back_to_zero": _flag(config.l2_back_to_zero),
        **(_BACK_TO_ZERO if config.l2_back_to_zero else {}),
        "window": "none" if not config.has_win else "global" if config.global_t == 1 else "pair",
        "variable_window": _flag(config.var_win),
        "rate_bound": _flag(config.rate_bound),
        "ack_high_priority": _flag(config.ack_high_prio),
        "ecn": _flag(config.enable_qcn),
        "buffer_bytes": str(config.buffer_size << 20),
        "cc.MinRate": str(config.min_rate),
    }
    if control in ("dcqcn", "dcqcn-sigcomm15"):
        _require(config, who, "RP_TIMER", "RATE_AI", "RATE_HAI")
        options |= {
            "cc.Gain": repr(config.ewma_gain),
            "cc.AlphaInterval": _interval(config, "ALPHA_RESUME_INTERVAL", compatibility),
            "cc.IncreaseInterval": _interval(config, "RP_TIMER", compatibility),
            "cc.FastRecoveryTimes": str(config.fast_recovery_times),
            "cc.AdditiveRate": str(config.rate_ai),
            "cc.HyperRate": str(config.rate_hai),
        }
        if control == "dcqcn":
            options |= {
                "cc.DecreaseInterval": _interval(config, "RATE_DECREASE_INTERVAL", compatibility),
                "cc.ClampTarget": _flag(config.clamp_target_rate),
            }
    elif control == "hpcc":
        _require(config, who, "RATE_AI")
        options |= {
            "cc.TargetUtilization": repr(config.u_target),
            "cc.MaxStage": str(config.mi_thresh),
            "cc.AdditiveRate": str(config.rate_ai),
            "cc.FastReact": _flag(config.fast_react),
            "cc.PerHopRates": _flag(config.multi_rate),
            "cc.SampleFeedback": _flag(config.sample_feedback),
        }
    elif control == "hpcc-pint":
        _require(config, who, "RATE_AI")
        options |= {
            "cc.TargetUtilization": repr(config.u_target),
            "cc.MaxStage": str(config.mi_thresh),
            "cc.AdditiveRate": str(config.rate_ai),
            "cc.LogBase": repr(config.pint_log_base),
            "cc.Probability": repr(config.pint_prob),
        }
    elif control == "timely":
        _require(config, who, "RATE_AI", "RATE_HAI")
        options |= {
            "cc.AdditiveRate": str(config.rate_ai),
            "cc.HyperRate": str(config.rate_hai),
            "cc.Unstamped": _flag(compatibility),
        }
    elif control == "dctcp":
        options |= {
            "cc.Gain": repr(config.ewma_gain),
            "cc.AdditiveRate": str(config.dctcp_rate_ai),
        }
    if control in ("dcqcn", "dcqcn-sigcomm15", "dctcp") and "EWMA_GAIN" not in config.given:
        warnings.append(
            f"{file}: EWMA_GAIN is missing: 0, as in ASTRA-sim's fork (1/16 in integers)"
        )
    if config.l2_ack_interval == 0:
        warnings.append(f"{file}: L2_ACK_INTERVAL 0: every packet is acknowledged")
    if config.nic_total_pause_time > 0 and not is_rdma_fork():
        warnings.append(f"{file}: NIC_TOTAL_PAUSE_TIME: ignored: pauses by a slow host bus")
    unwritten = [key for key in _NOT_WRITTEN if key in config.given]
    if unwritten:
        warnings.append(
            f"{file}: {', '.join(unwritten)}: not written; --output has flows, pfc and queues"
        )
    return options, tuple(warnings)


def _of_the_fork_only(config: Ns3Config) -> dict[str, str]:
    """What the fork's own devices have besides."""
    options = {"base_rtt": "global" if config.global_t == 1 else "pair"}
    if config.nic_total_pause_time > 0:
        options["cc.TotalPauseTimes"] = str(config.nic_total_pause_time)
    return options


def _interval(config: Ns3Config, key: str, compatibility: bool) -> str:
    """Microseconds; the fork cuts them to whole ones."""
    value: float = getattr(config, key.lower())
    if not compatibility:
        return repr(value)
    if value < 1:
        raise InputError(
            f"{value:g} is cut to whole microseconds, 0, with compatibility=fork",
            file=config.source,
            key=key,
        )
    return str(int(value))


def _require(config: Ns3Config, who: str, *keys: str) -> None:
    for key in keys:
        if key not in config.given:
            raise InputError(f"missing; {who} needs it", file=config.source, key=key)


def _ecn_map(config: Ns3Config, physical: PhysicalTopology) -> str:
    maps = {"KMIN_MAP": config.kmin_map, "KMAX_MAP": config.kmax_map, "PMAX_MAP": config.pmax_map}
    marking = set(physical.switches) - set(physical.nvswitches)
    rates = {link.bps for link in physical.links if link.a in marking or link.b in marking}
    # NVSwitches mark nothing, as in SimAI: their rates need no entry.
    others = {link.bps for link in physical.links} - rates if physical.nvswitches else set()
    for key, entries in maps.items():
        for rate in sorted(rates):
            if rate not in entries:
                known = ", ".join(map(str, entries)) or "none"
                raise InputError(
                    f"no entry for the link rate {rate} of {physical.source}; has: {known}",
                    file=config.source,
                    key=key,
                )
    return ",".join(
        f"{rate}:{config.kmin_map[rate] * 1000:.0f}:{config.kmax_map[rate] * 1000:.0f}"
        f":{config.pmax_map[rate]!r}"
        for rate in sorted(rates)
    ) + "".join(f",{rate}:{_NEVER_BYTES}:{_NEVER_BYTES}:0" for rate in sorted(others))


def _streams_taken(physical: PhysicalTopology) -> int:
    """Random streams that the fork has used up before the first ECN decision draws one.

    Every node's internet stack takes nine, the common error model two, each lossy link two.
    """
    return 9 * physical.nodes + 2 + 2 * sum(link.loss > 0 for link in physical.links)


def _faults(
    config: Ns3Config,
    physical: PhysicalTopology,
    links: NDArray[Any],
    nodes: int,
    ids: list[int] | None,
) -> dict[str, str]:
    """``LINK_DOWN t a b``: t us after 2 s of simulated time, as in the fork; 0 is never."""
    time_us, a, b = config.link_down
    if time_us == 0:
        return {}
    number = {node: index for index, node in enumerate(ids or range(nodes))}
    ends = {number.get(a, -1), number.get(b, -1)}
    found = [
        index for index, link in enumerate(links) if {int(link["src"]), int(link["dst"])} == ends
    ]
    if not found:
        raise InputError(
            f"{physical.source} has no link between {a} and {b}",
            file=config.source,
            key="LINK_DOWN",
        )
    at_ps = 2 * PS_PER_S + time_us * PS_PER_US
    return {"faults": ",".join(f"{at_ps}:{index}:0" for index in found)}


def _graph_of(
    physical: PhysicalTopology, error_rate: float
) -> tuple[int, int, NDArray[Any], list[int] | None]:
    """Endpoints, nodes, directed links; and the file's ids where endpoints do not come first."""
    ids = [*physical.endpoints, *sorted(physical.switches)]
    number = {node: index for index, node in enumerate(ids)}
    links = np.zeros(2 * len(physical.links), LINK)
    for index, link in enumerate(physical.links):
        a, b = number[link.a], number[link.b]
        rest = (link.bps / 8, link.delay_ps, link.loss or error_rate)
        links[2 * index] = (a, b, *rest)
        links[2 * index + 1] = (b, a, *rest)
    renumbered = ids != list(range(physical.nodes))
    return len(physical.endpoints), physical.nodes, links, ids if renumbered else None


def _graph_of_network(
    network: NetworkDims | NetworkLinks,
) -> tuple[int, int, NDArray[Any], bool]:
    """Endpoints, nodes, directed links; and whether endpoints pass on what is for others."""
    topology = topology_of(network)
    if isinstance(network, NetworkDims):
        forwards = len(network.topology) > 1 or network.topology[0] == "Ring"
    else:
        forwards = network.endpoints_forward
    return topology.endpoints, topology.nodes, topology.records(LINK), forwards


def _open(config: NetworkConfig) -> Network:
    return NativeNetwork.open(NS3.library(), config, trusted=True)


BACKENDS: tuple[BackendSpec, ...] = (
    BackendSpec(
        name="ns3",
        summary="ns-3, packet by packet: RDMA, PFC, ECN, DCQCN (the HPCC simulator's and "
        "SIGCOMM'15's), HPCC, TIMELY, DCTCP, Swift",
        prepare=prepare,
        open=_open,
        unavailable=NS3.unavailable,
        note=NS3.note,
        make_ready=NS3.library,
        library=NS3.library,
        version=NS3.version,
    ),
)
