# SPDX-License-Identifier: MIT
"""One simulation at a time: what was uploaded, how it runs, and what came of it."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

import astra_bridge
from astra_bridge.errors import AstraBridgeError
from astra_bridge.service.configuration import BACKENDS, Configured, configure
from astra_bridge.simulation import Experiment
from astra_bridge.text import show

__all__ = ["API_VERSIONS", "LOG", "Refusal", "Service"]

API_VERSIONS = ">=1.0.0,<2.0.0"
"""Of the interface: the SDK asks whether its own version matches."""

LOG = "simulation.log"
"""What the simulation prints; the SDK's users read it."""

_GRACE_S = 5.0


class Refusal(Exception):
    """A request that is not granted.

    Attributes
    ----------
    code : int
        Of HTTP.
    kind : str
        "validation" or "internal", as the SDK has it.
    """

    def __init__(self, why: str, code: int = 400, kind: str = "validation") -> None:
        super().__init__(why)
        self.code, self.kind = code, kind


class Service:
    """What the SDK's calls do, however they come here.

    Parameters
    ----------
    folder : Path, optional
        Where files of the running job are kept; emptied by each upload.  Default: one of its own,
        which goes with the service.
    custom : str, optional
        The backend that runs where a user asks for ``custom``.
    most_bytes : int
        How much an upload may unpack to.

    Examples
    --------
    >>> with Service() as service:
    ...     service.status()
    'inactive'
    """

    def __init__(
        self, folder: Path | None = None, *, custom: str | None = None, most_bytes: int = 1 << 33
    ) -> None:
        self._own = folder is None
        self._folder = Path(tempfile.mkdtemp(prefix="astra-bridge-")) if folder is None else folder
        self._custom, self._most_bytes = custom, most_bytes
        self._lock = threading.Lock()
        self._configured: Configured | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False
        self._reset()

    @property
    def _inputs(self) -> Path:
        return self._folder / "configuration"

    @property
    def _results(self) -> Path:
        return self._folder / "results"

    def _reset(self) -> None:
        for folder in (self._inputs, self._results):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        self._configured, self._process = None, None

    def _idle(self) -> None:
        if self.status() == "running":
            raise Refusal("a simulation is running; stop it, or wait for its end", 409)

    def upload(self, archive: bytes) -> str:
        """Unpack traces, in place of those before."""
        with self._lock:
            self._idle()
            self._reset()
            try:
                count = _unpack(archive, self._inputs, self._most_bytes)
            except Refusal:
                self._reset()
                raise
            return f"{count} files were uploaded"

    def configure(self, config: Any) -> tuple[str, tuple[str, ...]]:
        """Write the files of a Config, and check them; a message, and warnings."""
        with self._lock:
            self._idle()
            self._configured = None
            try:
                configured = configure(config, self._inputs, self._results)
                warnings = [*configured.warnings, *_checked(configured)]
            except AstraBridgeError as error:
                raise Refusal(self._relative(str(error))) from None
            self._configured = configured
            return "the configuration is accepted", tuple(map(self._relative, warnings))

    def _relative(self, text: str) -> str:
        """Without the folders of this machine."""
        return text.replace(f"{self._inputs}/", "").replace(f"{self._folder}/", "")

    def configuration(self) -> bytes:
        """All that has been uploaded and written, as an archive."""
        with self._lock:
            return _packed(self._inputs)

    def status(self) -> str:
        """One of running, completed, failed, terminated and inactive."""
        process = self._process
        if process is None:
            return "inactive"
        code = process.poll()
        if code is None:
            return "running"
        if self._stopped:
            return "terminated"
        return "completed" if code == 0 else "failed"

    def control(self, action: Any) -> str:
        """Start or stop."""
        if not isinstance(action, Mapping):
            raise Refusal(f"{show(action)} is no object")
        choice = action.get("choice") or ("start" if "start" in action else None)
        if choice == "start":
            start = action.get("start")
            backend = start.get("backend") if isinstance(start, Mapping) else None
            return self._start(str(backend))
        if choice == "stop":
            return self._stop()
        raise Refusal(f"choice: {show(choice)} is not allowed; allowed: start, stop")

    def _start(self, named: str) -> str:
        with self._lock:
            self._idle()
            configured = self._configured
            if configured is None:
                raise Refusal("nothing is configured: call set_config first", 412)
            backend = self._backend(named, configured)
            shutil.rmtree(self._results, ignore_errors=True)
            self._results.mkdir()
            flags = {**configured.flags, "backend": backend, "output": str(self._results)}
            # Flat: users of the SDK write each result under its name into one folder.
            flags["logging-folder"] = str(self._results)
            command = [sys.executable, "-m", "astra_bridge", "run"]
            command += [f"--{key}={value}" for key, value in flags.items()]
            self._stopped = False
            # Its working directory has nothing in it that Python could take for a module.
            with (self._results / LOG).open("wb") as log:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self._results,
                    env=_environment(),
                    start_new_session=True,
                )
            return f"the simulation runs on {backend}"

    def _backend(self, named: str, configured: Configured) -> str:
        if named == "custom":
            if self._custom is None:
                raise Refusal("custom: this service has no other backend (--custom-backend)")
            return self._custom
        if named not in BACKENDS:
            known = ", ".join([*BACKENDS, "custom"])
            raise Refusal(f"backend: {show(named)} is not served here; allowed: {known}")
        if BACKENDS[named] != BACKENDS[configured.choice]:
            # The two analytical ones take the same file.
            kinds = {name: name.split("_")[0] for name in (named, configured.choice)}
            if len(set(kinds.values())) > 1:
                raise Refusal(f"{named}: the configuration is for {configured.choice}")
        return BACKENDS[named]

    def _stop(self) -> str:
        with self._lock:
            if self.status() != "running":
                raise Refusal("no simulation is running", 409)
            self._end()
            return "the simulation was stopped"

    def _end(self) -> None:
        process = self._process
        assert process is not None
        self._stopped = True
        for number in (signal.SIGTERM, signal.SIGKILL):
            os.killpg(process.pid, number)
            try:
                process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                continue
            return

    def result(self, asked: Any) -> bytes:
        """The list of result files as JSON, or the content of one."""
        if not isinstance(asked, Mapping):
            raise Refusal(f"{show(asked)} is no object")
        _flow_times(self._results)
        name = asked.get("filename")
        if name is None:
            files = [_properties(file, self._results) for file in _files(self._results)]
            if not files:
                raise Refusal("there are no results", 404)
            return json.dumps(files, indent=4).encode()
        if name == "*":
            return _packed(self._results)
        for file in _files(self._results):
            if file.relative_to(self._results).as_posix() == name:
                return file.read_bytes()
        raise Refusal(f"filename: there is no result {show(name)}", 404)

    @staticmethod
    def version() -> dict[str, str]:
        """What the SDK compares with its own version."""
        return {
            "api_spec_version": API_VERSIONS,
            "sdk_version": API_VERSIONS,
            "app_version": astra_bridge.__version__,
        }

    def close(self) -> None:
        """End what runs, and remove its files where the folder is the service's own."""
        if self.status() == "running":
            self._end()
        if self._own:
            shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _environment() -> dict[str, str]:
    """As here, and astra_bridge from where it is here."""
    found = str(Path(astra_bridge.__file__).resolve().parent.parent)
    known = os.environ.get("PYTHONPATH", "")
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [found, known]))}


def _checked(configured: Configured) -> list[str]:
    """Read what was written, as a run will; warnings."""
    flags = configured.flags
    experiment = Experiment(
        flags["workload-configuration"],
        flags["system-configuration"],
        flags["network-configuration"],
        flags["remote-memory-configuration"],
        flags.get("comm-group-configuration"),
        backend=BACKENDS[configured.choice],
        logical_topology=_path(flags.get("logical-topology-configuration")),
    )
    warnings = [*experiment.system_config.warnings, *experiment.memory_config.warnings]
    return [*warnings, *experiment.prepared.warnings]


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _unpack(archive: bytes, folder: Path, most_bytes: int) -> int:
    """Write the files of a ZIP archive; how many."""
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            rows = [row for row in opened.infolist() if not row.is_dir()]
            too_large = Refusal(f"the archive unpacks to more than {most_bytes} bytes", 413)
            if sum(row.file_size for row in rows) > most_bytes:
                raise too_large
            left = most_bytes
            for row in rows:
                name = PurePosixPath(row.filename)
                kind = stat.S_IFMT(row.external_attr >> 16)
                odd = name.is_absolute() or ".." in name.parts or "\0" in row.filename
                if odd or "\\" in row.filename or kind not in (0, stat.S_IFREG):
                    raise Refusal(f"the archive has the entry {show(row.filename)}")
                path = folder.joinpath(*name.parts)
                path.parent.mkdir(parents=True, exist_ok=True)
                with opened.open(row) as source, path.open("wb") as out:
                    # What it says of its size may be a lie.
                    while block := source.read(1 << 20):
                        left -= len(block)
                        if left < 0:
                            raise Refusal(
                                f"the archive unpacks to more than {most_bytes} bytes", 413
                            )
                        out.write(block)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, RuntimeError, NotImplementedError, EOFError,
            OSError, ValueError) as error:  # fmt: skip
        raise Refusal(f"the upload is no ZIP archive that can be read: {error}") from None
    return len(rows)


def _flow_times(results: Path) -> None:
    """Write ``fct.txt`` from the table of flows, where a run has written one.

    A line is a flow, as the HPCC simulator has it: addresses, ports, bytes, start, time taken, and
    time alone in the network [ns].  The SDK's users read it after a run on ns-3.
    """
    table, file = results / "flows.csv", results / "fct.txt"
    if file.exists() or not table.exists():
        return
    ports: Counter[tuple[str, str]] = Counter()
    lines = []
    with table.open(encoding="utf-8", newline="") as rows:
        for row in csv.DictReader(rows):
            pair = row["src"], row["dst"]
            ends = " ".join(f"{_address(int(one)):08x}" for one in pair)
            times = (int(row[key]) // 1000 for key in ("start_ps", "fct_ps", "ideal_fct_ps"))
            words = (10000 + ports[pair], 100, row["bytes"], *times)
            ports[pair] += 1
            lines.append(f"{ends} {' '.join(map(str, words))}\n")
    file.write_text("".join(lines), encoding="utf-8")


def _address(node: int) -> int:
    return 0x0B000001 + (node // 256 << 16) + (node % 256 << 8)


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


def _packed(folder: Path) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in _files(folder):
            archive.write(file, file.relative_to(folder).as_posix())
    return out.getvalue()


def _properties(file: Path, folder: Path) -> dict[str, Any]:
    content = file.read_bytes()
    made = datetime.fromtimestamp(file.stat().st_mtime)
    return {
        "filename": file.relative_to(folder).as_posix(),
        "size": len(content),
        "checksum": hashlib.md5(content, usedforsecurity=False).hexdigest(),
        "created": made.strftime("%Y-%m-%d %H:%M:%S"),
    }
