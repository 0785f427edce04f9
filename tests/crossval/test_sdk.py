# SPDX-License-Identifier: MIT
"""The client of astra-sim-sdk, as it is on PyPI, runs an all-reduce against ``serve``."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from astra_bridge.cli import main
from astra_bridge.network.registry import backend
from astra_bridge.workload import collective
from tests.waiting import HANGS_S

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "tests" / "sdk_client.py"
SDK = "astra-sim-sdk==1.2.1"


@pytest.fixture(scope="module")
def sdk_python(
    tmp_path_factory: pytest.TempPathFactory, missing: Callable[[str, str], None]
) -> Path:
    """A Python that has the SDK: ``ASTRA_SIM_SDK_PYTHON``, or an environment that is made for it.

    It needs protobuf 5, which other packages of the tests are too new for.
    """
    given = os.environ.get("ASTRA_SIM_SDK_PYTHON")
    if given:
        return Path(given)
    folder = tmp_path_factory.mktemp("sdk")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    command = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", SDK]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        missing("sdk", f"{SDK} cannot be installed: {done.stderr.strip().splitlines()[-1]}")
    return python


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """The traces of an all-reduce, as an archive; they stand beside it, too."""
    collective("all-reduce", 1 << 20, 8).write(tmp_path / "workload" / "all_reduce")
    with zipfile.ZipFile(tmp_path / "workload.zip", "w") as packed:
        for file in (tmp_path / "workload").iterdir():
            packed.write(file, f"workload/{file.name}")
        # More than a message of gRPC holds, so it goes and comes in pieces.
        packed.writestr("noise", os.urandom(5 << 20))
    return tmp_path / "workload.zip"


@contextmanager
def serving(*arguments: str, **environment: str) -> Iterator[str]:
    command = [sys.executable, "-m", "astra_bridge", "serve", "--port=0", *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().split()[-1]
    finally:
        process.terminate()
        process.wait(HANGS_S)
        assert process.stdout is not None
        process.stdout.close()


def client(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(python), str(CLIENT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@contextmanager
def serving_rpc(sdk_python: Path, folder: Path) -> Iterator[str]:
    """A service that answers gRPC, whose messages are the SDK's."""
    where = "import astra_sim_sdk; print(astra_sim_sdk.__file__)"
    found = subprocess.run([sdk_python, "-c", where], capture_output=True, text=True, check=True)
    # The messages alone: its environment has an older protobuf.
    shutil.copytree(Path(found.stdout.strip()).parent, folder / "path" / "astra_sim_sdk")
    path = os.pathsep.join(filter(None, [str(folder / "path"), os.environ.get("PYTHONPATH")]))
    with serving("--grpc-port=0", PYTHONPATH=path) as location:
        yield location


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_the_unmodified_client_gets_what_run_gives(
    transport: str, sdk_python: Path, archive: Path, tmp_path: Path
) -> None:
    got = tmp_path / "got"
    got.mkdir()
    if transport == "grpc":
        pytest.importorskip("grpc")
    served = serving() if transport == "http" else serving_rpc(sdk_python, tmp_path)
    with served as location:
        done = client(sdk_python, location, str(archive), str(got))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "before: inactive"
    assert "after: completed" in lines
    # The same by hand, with the files that the service has made.
    with zipfile.ZipFile(got / "configuration.zip") as packed:
        packed.extractall(tmp_path / "config")
    here = tmp_path / "config"
    flags = {
        "workload-configuration": here / "workload" / "all_reduce",
        "system-configuration": here / "system.json",
        "network-configuration": here / "analytical_network.yml",
        "remote-memory-configuration": here / "remote_memory.json",
        "backend": "analytical-aware",
        "json": tmp_path / "run.json",
    }
    assert main(["run", *(f"--{key}={value}" for key, value in flags.items())]) == 0
    theirs, ours = (json.loads(one.read_text()) for one in (got / "result.json", flags["json"]))
    for key in ("finish_ns", "exposed_comm_ns", "statistics", "events"):
        assert theirs[key] == ours[key], key
    log = (got / "simulation.log").read_text()
    found = re.findall(r"sys\[(\d+)\] finished, (\d+) cycles", log)
    assert sorted((int(rank), int(ns)) for rank, ns in found) == list(enumerate(ours["finish_ns"]))


def test_the_client_shows_a_token_in_the_location(
    sdk_python: Path, archive: Path, tmp_path: Path
) -> None:
    with serving(ASTRA_BRIDGE_TOKEN="sesame") as location:
        refused = client(sdk_python, location, str(archive), str(tmp_path))
        assert refused.returncode != 0
        assert "the token is missing or wrong" in refused.stderr
        shown = location.replace("http://", "http://me:sesame@")
        done = client(sdk_python, shown, str(archive), str(tmp_path))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_the_client_is_told_what_is_wrong(transport: str, sdk_python: Path, tmp_path: Path) -> None:
    if transport == "grpc":
        pytest.importorskip("grpc")
    served = serving() if transport == "http" else serving_rpc(sdk_python, tmp_path)
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as packed:
        packed.writestr("readme", "no traces")
    with served as location:
        done = client(sdk_python, location, str(tmp_path / "empty.zip"), str(tmp_path))
    assert done.returncode != 0
    said = " ".join(done.stderr.replace("''", "'").split())
    assert "no traces 'workload/all_reduce'.RANK.et were uploaded" in said


@pytest.mark.slow
def test_on_ns3(
    sdk_python: Path, archive: Path, tmp_path: Path, missing: Callable[[str, str], None]
) -> None:
    reason = backend("ns3").unavailable()
    if reason is not None:
        missing("ns3", reason)
    with serving() as location:
        done = client(sdk_python, location, str(archive), str(tmp_path), "ns3")
    assert done.returncode == 0, done.stderr
    assert "after: completed" in done.stdout, (tmp_path / "simulation.log").read_text()
    rows = [line.split() for line in (tmp_path / "fct.txt").read_text().splitlines()]
    assert rows
    assert {len(row) for row in rows} == {8}
    assert all(int(row[6]) > 0 and int(row[7]) > 0 for row in rows)


def test_a_config_in_pieces(
    sdk_python: Path, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK sends one that is larger than 4 MiB so."""
    grpc = pytest.importorskip("grpc")
    from google.protobuf import message_factory

    from astra_bridge.service import Service, rpc

    where = "import astra_sim_sdk; print(astra_sim_sdk.__file__)"
    found = subprocess.run([sdk_python, "-c", where], capture_output=True, text=True, check=True)
    shutil.copytree(Path(found.stdout.strip()).parent, tmp_path / "path" / "astra_sim_sdk")
    monkeypatch.syspath_prepend(str(tmp_path / "path"))
    described = rpc._described().file.message_types_by_name
    asked = message_factory.GetMessageClass(described["Config"])()
    asked.common_config.workload = "workload/all_reduce"
    network = asked.network_backend
    network.choice = 1
    row = network.analytical_congestion_aware.topology.network.add()
    row.topology, row.npus_count, row.bandwidth, row.latency = 1, 8, 50.1, 500
    network.analytical_congestion_aware.topology.choice = 1
    data = asked.SerializeToString()
    piece = message_factory.GetMessageClass(described["Data"])
    with Service() as service:
        service.upload(archive.read_bytes())
        server = rpc.RpcServer(service)
        with grpc.insecure_channel(server.location) as channel:
            call = channel.stream_unary("/astra.Openapi/streamSetConfig", piece.SerializeToString)
            call(iter([piece(datum=data[:9]), piece(datum=data[9:])]), timeout=HANGS_S)
        text = (service._inputs / "analytical_network.yml").read_text()
        server.close()
    assert "bandwidth:\n- 50.1\n" in text  # not 50.099998
