# SPDX-License-Identifier: MIT
"""What a user of astra-sim-sdk writes: runs where the SDK is installed, which need not be here.

PYTHON tests/sdk_client.py LOCATION WORKLOAD.zip FOLDER [BACKEND]
"""

from __future__ import annotations

import json
import sys
import time
import zipfile
from pathlib import Path

import astra_sim_sdk.astra_sim_sdk as astra_sim


def main(location: str, archive: str, folder: str, backend: str) -> None:
    transport = "http" if location.startswith("http://") else "grpc"
    api = astra_sim.api(location=location, transport=transport, version_check=True)
    api.enable_grpc_streaming = True
    print("before:", api.get_status().status)
    print(api.upload_config(Path(archive).read_bytes()).message)

    config = astra_sim.Config()
    config.common_config.workload = "workload/all_reduce"
    system = config.common_config.system
    system.scheduling_policy = system.LIFO
    system.endpoint_delay = 10
    system.active_chunks_per_dimension = 1
    system.preferred_dataset_splits = 4
    system.all_reduce_implementation = [system.RING]
    system.collective_optimization = system.LOCALBWAWARE
    system.local_mem_bw = 1600
    memory = config.common_config.remote_memory
    memory.memory_type = memory.NO_MEMORY_EXPANSION
    config.common_config.cmd_parameters.injection_scale = 1
    config.common_config.cmd_parameters.rendezvous_protocol = False
    network = config.network_backend
    if backend == "ns3":
        nc = network.ns3.topology.nc_topology
        nc.total_nodes, nc.total_switches, nc.total_links, nc.switch_ids = 9, 1, 8, [8]
        for rank in range(8):
            nc.connections.add(rank, 8, "100Gbps", "0.0005ms", "0")
        network.ns3.network.buffer_size = 32
        network.ns3.logical_topology.logical_dimensions = [8]
    else:
        network.analytical_congestion_aware.topology.network.add("ring", 8, 50, 500)
    print(api.set_config(config).message)

    control = astra_sim.Control(choice="start")
    control.start.backend = backend
    print(api.set_control_action(control).message)
    while api.get_status().status == "running":
        time.sleep(0.05)
    print("after:", api.get_status().status)

    asked = api.result()
    asked.choice = "metadata"
    listed = json.loads(api.get_result(asked).read())
    for one in listed:
        asked = api.result()
        asked.filename = one["filename"]
        content = api.get_result(asked).read()
        assert len(content) == one["size"], one
        Path(folder, Path(one["filename"]).name).write_bytes(content)
    Path(folder, "configuration.zip").write_bytes(api.get_config().read())
    print("files:", " ".join(sorted(one["filename"] for one in listed)))
    print("packed:", len(zipfile.ZipFile(Path(folder, "configuration.zip")).namelist()))


if __name__ == "__main__":
    main(*sys.argv[1:4], *(sys.argv[4:] or ["analytical_congestion_aware"]))
