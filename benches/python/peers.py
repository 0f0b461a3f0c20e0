"""The servers that are compared, each with its own port and folder, and a worker where one is asked
for. isect takes its worker from the broker: the broker starts it.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

#: What a worker of a peer needs: the module and the server's program.
NEEDS = {"nats": ("nats", "nats-server"), "redis": ("redis", "redis-server"),
         "gearman": ("python3_gearman", "gearmand")}
#: How long a server may take to start, in seconds.
START = 10


def is_there(name: str) -> str:
    """Why a peer can't be measured; empty = it can."""
    module, program = NEEDS.get(name.split("-")[0], ("isect", ""))
    probe = subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True)
    if probe.returncode:
        return f"the package {module} is not installed"
    if program and not shutil.which(program):
        return f"{program} is not installed"
    return ""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until_open(port: int) -> None:
    until = time.monotonic() + START
    while time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise SystemExit(f"nothing listens at port {port} after {START} s")


def processor_time(pid: int) -> float:
    """The seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Peer:
    """A server, perhaps a worker of it, and where they are."""

    def __init__(self, name: str, folder: Path, binaries: Path, worker: Path | None) -> None:
        self.name, self.processes, self.address = name, [], ""
        self.worker_pid = 0
        self.folder, self.binaries, self.script = folder, binaries, worker
        folder.mkdir()
        try:
            getattr(self, f"start_{name.split('-')[0]}")()
            if worker and not self.worker_pid:
                self.worker(worker)
        except BaseException:
            self.stop()
            raise

    def server(self, *args: str) -> None:
        self.processes.append(subprocess.Popen(args, stdout=subprocess.DEVNULL,
                                               stderr=subprocess.DEVNULL))

    def worker(self, script: Path) -> None:
        args = [sys.executable, str(script), "worker", self.name, self.address]
        worker = subprocess.Popen(args, stdout=subprocess.PIPE, text=True)
        self.processes.append(worker)
        assert worker.stdout and worker.stdout.readline() == "ready\n", self.name
        self.worker_pid = worker.pid

    def start_isect(self) -> None:
        ports = self.folder / "ports.json"
        self.server(str(self.binaries / "isectd"), "--state", str(self.folder / "state"),
                    "--listen", "127.0.0.1:0", "--ports-file", str(ports), "--allow-root-workers")
        until = time.monotonic() + START
        while not ports.exists():
            assert time.monotonic() < until, "isectd did not start"
            time.sleep(0.02)
        self.address = json.loads(ports.read_text())["client"]
        if not self.script:
            return
        pid, launcher = self.folder / "pid", self.folder / "worker"
        path = os.environ.get("PYTHONPATH", "")
        launcher.write_text(f"#!/bin/sh\necho $$ >'{pid}'\nPYTHONPATH='{path}' exec "
                            f"'{sys.executable}' '{self.script}' \"$@\"\n")
        launcher.chmod(0o755)
        for command in ["config service upper", f"config worker upper localhost {launcher}",
                        "start upper"]:
            client = [str(self.binaries / "isdclient"), "-h", self.address, "-c", command]
            subprocess.run(client, check=True, stdout=subprocess.DEVNULL)
        until = time.monotonic() + START
        while not (pid.exists() and pid.read_text().endswith("\n")):
            assert time.monotonic() < until, "isectd did not start the worker"
            time.sleep(0.02)
        self.worker_pid = int(pid.read_text())

    def start_nats(self) -> None:
        port = free_port()
        self.server("nats-server", "-a", "127.0.0.1", "-p", str(port))
        until_open(port)
        self.address = f"nats://127.0.0.1:{port}"

    def start_redis(self) -> None:
        port = free_port()
        self.server("redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "",
                    "--dir", str(self.folder))
        until_open(port)
        self.address = str(port)

    def start_gearman(self) -> None:
        port = free_port()
        self.server("gearmand", "-L", "127.0.0.1", "-p", str(port), "-l", str(self.folder / "log"))
        until_open(port)
        self.address = str(port)

    def measure(self, script: Path, *words: str) -> dict[str, float]:
        """What a client of this peer finds, a process of its own."""
        args = [sys.executable, str(script), "client", self.name, self.address, *words]
        out = subprocess.run(args, check=True, stdout=subprocess.PIPE, text=True)
        return json.loads(out.stdout)

    def stop(self) -> None:
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            process.wait(20)
