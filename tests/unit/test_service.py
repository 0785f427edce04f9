# SPDX-License-Identifier: MIT
"""``astra-bridge serve``: what it answers, and what it refuses, without the SDK."""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import stat
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from astra_bridge.errors import InputError
from astra_bridge.service import Refusal, Service, job
from astra_bridge.service.configuration import configure
from astra_bridge.service.http import HttpServer
from astra_bridge.workload import collective
from tests.waiting import HANGS_S, until

JSON = "application/json"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("archive")
    collective("all-reduce", 1 << 18, 4).write(folder / "workload" / "ring")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        for file in sorted(folder.rglob("*.et")):
            packed.write(file, file.relative_to(folder).as_posix())
    return out.getvalue()


def config(**changes: Any) -> dict[str, Any]:
    dims = [{"topology": "ring", "npus_count": 4, "bandwidth": 50, "latency": 500}]
    topology = {"topology": {"choice": "network", "network": dims}}
    return {
        "common_config": {
            "workload": "workload/ring",
            "system": {"all_reduce_implementation": ["ring"], "endpoint_delay": 10},
            "remote_memory": {"memory_type": "NO_MEMORY_EXPANSION"},
            **changes,
        },
        "network_backend": {
            "choice": "analytical_congestion_aware",
            "analytical_congestion_aware": topology,
        },
    }


START = {"choice": "start", "start": {"backend": "analytical_congestion_aware"}}


@pytest.fixture
def service(archive: bytes) -> Iterator[Service]:
    with Service() as made:
        made.upload(archive)
        yield made


def finished(service: Service) -> str:
    until(lambda: service.status() != "running")
    return service.status()


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Jobs that are started run once this file is there."""
    file, script = tmp_path / "gate", tmp_path / "python"
    script.write_text(
        f'#!/bin/sh\nwhile [ ! -e "{file}" ]; do sleep 0.02; done\nexec "{sys.executable}" "$@"\n'
    )
    script.chmod(0o700)
    monkeypatch.setattr(job, "sys", SimpleNamespace(executable=str(script)))
    return file


def refusal(call: Any, *arguments: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        call(*arguments)
    return caught.value


# ---- a job ----


def test_a_job_from_upload_to_results(service: Service, gate: Path) -> None:
    assert service.status() == "inactive"
    message, warnings = service.configure(config(logging={"sink": []}, cmd_parameters={}))
    assert message == "the configuration is accepted"
    assert warnings == ("logging: ignored: astra-bridge does not use spdlog",)
    assert service.control(START) == "the simulation runs on analytical-aware"
    assert refusal(service.upload, b"").code == 409
    assert refusal(service.control, START).code == 409
    gate.touch()
    assert finished(service) == "completed"
    listed = json.loads(service.result({"choice": "metadata"}))
    names = [one["filename"] for one in listed]
    assert {"simulation.log", "result.json", "ranks.csv"} <= set(names)
    assert not [name for name in names if "/" in name]
    log = service.result({"filename": "simulation.log"}).decode()
    assert log.count("finished, ") == 4
    for one in listed:
        assert len(service.result({"filename": one["filename"]})) == one["size"]
    with zipfile.ZipFile(io.BytesIO(service.result({"filename": "*"}))) as packed:
        assert sorted(packed.namelist()) == sorted(names)
    with zipfile.ZipFile(io.BytesIO(service.configuration())) as packed:
        names = packed.namelist()
        assert "workload/ring.0.et" in names
        assert json.loads(packed.read("system.json"))["endpoint-delay"] == 10
        assert b"Ring" in packed.read("analytical_network.yml")


def test_a_custom_backend_runs_the_same_files(archive: bytes) -> None:
    with Service(custom="flow") as service:
        service.upload(archive)
        service.configure(config())
        start = {"choice": "start", "start": {"backend": "custom"}}
        assert service.control(start) == "the simulation runs on flow"
        assert finished(service) == "completed"
        assert json.loads(service.result({"filename": "result.json"}))["backend"] == "flow"


def test_a_job_that_fails_says_why(service: Service) -> None:
    # What only the run finds out: the traces are of more ranks than the network.
    small = config()
    dims = small["network_backend"]["analytical_congestion_aware"]["topology"]["network"]
    dims[0]["npus_count"] = 2
    service.configure(small)
    (service._inputs / "workload" / "ring.0.et").write_bytes(b"\xff" * 9)
    service.control(START)
    assert finished(service) == "failed"
    assert "error: " in service.result({"filename": "simulation.log"}).decode()


def test_a_job_is_stopped(service: Service, gate: Path) -> None:
    assert refusal(service.control, {"choice": "stop"}).code == 409
    service.configure(config())
    service.control(START)
    assert service.status() == "running"
    assert service.control({"choice": "stop"}) == "the simulation was stopped"
    assert service.status() == "terminated"
    gate.touch()
    service.control(START)
    assert finished(service) == "completed"


def test_closing_ends_what_runs(archive: bytes, gate: Path) -> None:
    with Service() as service:
        service.upload(archive)
        service.configure(config())
        service.control(START)
        process, folder = service._process, service._folder
        assert process is not None
        assert process.poll() is None
    assert process.poll() is not None
    assert not folder.exists()


# ---- what is refused ----


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda c: c.pop("common_config"), "config.common_config: is missing"),
        (lambda c: c.pop("network_backend"), "config.network_backend: is missing"),
        (lambda c: c["common_config"].pop("workload"), "common_config.workload: is missing"),
        (lambda c: c["common_config"].update(workload="x/none"), "no traces 'x/none'.RANK.et"),
        (lambda c: c["common_config"].update(workload="../../etc/x"), "is no prefix of traces"),
        (lambda c: c["common_config"].update(system=[]), "allowed"),
        (lambda c: c["common_config"].update(system=3), "system: 3 is no object"),
        (
            lambda c: c["common_config"]["system"].update(endpoint_delay="late"),
            "system.json: endpoint-delay: Expected int",
        ),
        (lambda c: c["network_backend"].update(choice="htsim", htsim={}), "'htsim' is not served"),
        (
            lambda c: c["network_backend"]["analytical_congestion_aware"]["topology"].update(
                choice="infragraph"
            ),
            "'infragraph' is not served here; allowed: network",
        ),
        (
            lambda c: c["network_backend"]["analytical_congestion_aware"]["topology"]["network"][
                0
            ].update(bandwidth="fast"),
            "bandwidth",
        ),
        (
            lambda c: c["common_config"]["system"].update(
                all_reduce_implementation_custom=["/etc/passwd"]
            ),
            "no path among the uploaded files",
        ),
    ],
)
def test_what_is_wrong_is_named(service: Service, change: Any, why: str) -> None:
    given = config()
    change(given)
    if why == "allowed":
        service.configure(given)  # an empty system has ASTRA-sim's defaults
        return
    caught = refusal(service.configure, given)
    assert why in str(caught)
    assert (caught.code, caught.kind) == (400, "validation")
    assert str(service._folder) not in str(caught)
    assert refusal(service.control, START).code == 412


def test_backends_that_do_not_fit(service: Service) -> None:
    service.configure(config())
    for backend, why in (
        ("ns3", "the configuration is for analytical_congestion_aware"),
        ("htsim", "is not served here"),
        ("custom", "no other backend"),
        ("../../bin/sh", "is not served here"),
    ):
        start = {"choice": "start", "start": {"backend": backend}}
        assert why in str(refusal(service.control, start))
    for odd in (None, [], {"choice": "jump"}, {"choice": "start"}, {"choice": "start", "start": 3}):
        assert refusal(service.control, odd).code == 400
    assert refusal(service.result, {"filename": "../configuration/system.json"}).code == 404
    assert refusal(service.result, {"choice": "metadata"}).code == 404


def packed(*entries: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return out.getvalue()


def link() -> zipfile.ZipInfo:
    one = zipfile.ZipInfo("link")
    one.external_attr = (stat.S_IFLNK | 0o777) << 16
    return one


@pytest.mark.parametrize(
    "archive",
    [
        packed(("../outside", b"x")),
        packed(("a/../../outside", b"x")),
        packed(("/outside", b"x")),
        packed(("a\\..\\b", b"x")),
        packed((link(), b"/etc/passwd")),
        packed(("a", b"x"), ("a/b", b"x")),
        b"",
        b"PK\x03\x04 and no more",
    ],
)
def test_archives_that_are_refused(archive: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "inner"
    with Service(folder) as service:
        assert refusal(service.upload, archive).code == 400
        assert sorted(one.name for one in tmp_path.rglob("*")) == [
            "configuration", "inner", "results"
        ]  # fmt: skip


def test_archives_that_are_too_large() -> None:
    with Service(most_bytes=1000) as service:
        assert service.upload(packed(("a", b"x" * 1000))) == "1 files were uploaded"
        assert refusal(service.upload, packed(("a", b"x" * 1001))).code == 413


def test_the_files_of_an_ns3_configuration(tmp_path: Path) -> None:
    inputs, results = tmp_path / "in", tmp_path / "out"
    (inputs / "w").mkdir(parents=True)
    (inputs / "w" / "x.0.et").write_bytes(b"")
    given = config(
        workload="/home/me/w/x", communicator_group=[{"identifier": "3", "npu_list": [0]}]
    )
    connection = {"source_index": 0, "destination_index": 1, "bandwidth": "1Gbps", "latency": "1us"}
    given["network_backend"] = {
        "choice": "ns3",
        "ns3": {
            "network": {"cc_mode": 12, "link_down": [0, 0, 0], "topology_file": "a",
                        "flow_file": "f", "kmax_map": "1 2 3"},
            "topology": {"nc_topology": {"total_nodes": 2, "total_switches": 1,
                                         "switch_ids": [1], "connections": [connection]}},
            "logical_topology": {"logical_dimensions": [1]},
        },
    }  # fmt: skip
    configured = configure(given, inputs, results)
    assert (inputs / "network_config.txt").read_text().splitlines() == [
        "CC_MODE 12",
        "LINK_DOWN 0 0 0",
        f"TOPOLOGY_FILE {inputs / 'nc-topology-file.txt'}",
        f"FLOW_FILE {results / 'f'}",
        "KMAX_MAP 1 2 3",
    ]
    text = (inputs / "nc-topology-file.txt").read_text()
    assert text == "2 1 1\n1\n0 1 1Gbps 1us 0\n"
    assert json.loads((inputs / "logical.json").read_text()) == {"logical-dims": ["1"]}
    assert json.loads((inputs / "communicator_group.json").read_text()) == {"3": [0]}
    assert configured.flags["workload-configuration"] == str(inputs / "w" / "x")


# ---- HTTP ----


class Client:
    def __init__(self, server: HttpServer) -> None:
        self.host = server.location.removeprefix("http://")

    def __call__(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, Any]:
        connection = http.client.HTTPConnection(self.host, timeout=HANGS_S)
        sent = {"Content-Type": JSON} | {key.replace("_", "-"): v for key, v in headers.items()}
        with contextlib.closing(connection):
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            content = answer.read()
        if JSON in answer.headers["Content-Type"]:
            return answer.status, json.loads(content)
        return answer.status, content


@pytest.fixture(scope="module")
def ask() -> Iterator[Client]:
    with Service() as service:
        server = HttpServer(service, port=0)
        server.start()
        yield Client(server)
        server.stop()


def test_calls_and_their_shapes(ask: Client, archive: bytes) -> None:
    assert ask("POST", "/get_status") == (200, {"status": "inactive"})
    code, said = ask("POST", "/upload_config", archive, Content_Type="application/octet-stream")
    assert (code, said) == (200, {"message": "4 files were uploaded", "warnings": []})
    code, said = ask("POST", "/set_config", json.dumps(config()).encode())
    assert (code, said["message"]) == (200, "the configuration is accepted")
    code, version = ask("GET", "/capabilities/version")
    assert set(version) == {"api_spec_version", "sdk_version", "app_version"}
    code, content = ask("POST", "/get_config")
    assert content.startswith(b"PK")


def error(answer: tuple[int, Any]) -> int:
    code, said = answer
    assert set(said) == {"code", "kind", "errors"}
    assert said["code"] == code
    assert said["kind"] in ("validation", "internal")
    assert all(isinstance(one, str) for one in said["errors"])
    return code


def test_requests_that_are_refused(ask: Client) -> None:
    assert error(ask("GET", "/")) == 404
    assert error(ask("POST", "/capabilities/version")) == 404
    assert error(ask("POST", "/set_config", b"{")) == 400
    assert error(ask("POST", "/set_config", b"[" * 100_000)) == 400
    assert error(ask("POST", "/set_config", b"null")) == 400
    assert error(ask("POST", "/set_control_action", b"[]")) == 400
    assert error(ask("POST", "/result", b'{"filename": 3}')) == 404
    assert error(ask("POST", "/result", b"", Content_Length="x")) == 400
    assert error(ask("POST", "/result", b"", Content_Length=str(1 << 40))) == 413
    assert error(ask("POST", "/result", None, Transfer_Encoding="chunked")) == 411


def test_pages_in_a_browser_cannot_give_orders(ask: Client) -> None:
    """Neither a form, nor a name that somebody else points at this machine."""
    stop = b'{"choice": "stop"}'
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert error(ask("POST", "/set_control_action", stop, Content_Type=kind)) == 415
    assert error(ask("POST", "/set_control_action", stop, Host="rebound.example")) == 403
    for here in ("localhost:1", "127.0.0.1", "[::1]:80"):
        assert error(ask("POST", "/set_control_action", stop, Host=here)) == 409


def test_a_token() -> None:
    with Service() as service:
        server = HttpServer(service, port=0, token="open sesame")
        server.start()
        ask = Client(server)
        basic = base64.b64encode(b"anybody:open sesame").decode()
        wrong = base64.b64encode(b"open sesame:").decode()
        for given in (
            "",
            "Bearer open",
            "Bearer",
            f"Basic {wrong}",
            "Basic !",
            "Other open sesame",
        ):
            headers = {"Authorization": given} if given else {}
            assert error(ask("POST", "/get_status", **headers)) == 401
        for given in ("Bearer open sesame", f"Basic {basic}"):
            answer = ask("POST", "/get_status", Authorization=given, Host="elsewhere.example")
            assert answer == (200, {"status": "inactive"})
        server.stop()


def test_beyond_this_machine_only_with_a_token() -> None:
    with Service() as service:
        with pytest.raises(InputError, match="needs a token"):
            HttpServer(service, "0.0.0.0", 0)
        HttpServer(service, "0.0.0.0", 0, token="x").close()
        server = HttpServer(service, port=0)
        with pytest.raises(InputError, match="cannot listen"):
            HttpServer(service, port=int(server.location.rpartition(":")[2]))
        server.close()
