"""Ends what a test left behind: the processes and the folders of brokers of `isect.testing`.

A process that is killed cleans nothing up. So each process that starts such a broker has a second
one beside it, which runs this file: it reads the names of folders from its standard input, and
removes those that are left, with all processes that name them, once that input ends. The other end
of it is held by the process of the tests alone, so it ends when that does, in whatever way.

A signal at the parent's death (PR_SET_PDEATHSIG) would not do: it comes when the *thread* ends that
started the child, it must be asked for between fork and exec, where Python code is not safe beside
threads, and it would end the broker alone, neither its workers nor its folder.

Only Python's own library is used here, and nothing else of the package.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time

#: Seconds that a broker gets to end its workers in order.
GRACE = 2.0
#: Seconds until the processes that are left must be gone after SIGKILL.
KILLED = 5.0


def processes_of(folder: str) -> dict[int, list[str]]:
    """The processes with a path in this folder among their arguments, with all these."""
    found = {}
    inside = f"{folder}/"
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            words = _arguments(int(name))
            if any(inside in word for word in words):
                found[int(name)] = words
    return found


def _arguments(pid: int) -> list[str]:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return os.fsdecode(file.read()).split("\0")
    except OSError:
        # It ended meanwhile.
        return []


def _signal(pid: int, words: list[str], number: int) -> None:
    """Sends a signal to a process if it still is the one that was found."""
    handle = None
    try:
        # The number may be another process's by now; what the handle stands for can't become one.
        # Some builds of Python don't have it: those are left with a moment between check and kill.
        handle = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None
        if _arguments(pid) != words:
            return
        if number == signal.SIGKILL and os.getpgid(pid) == pid != os.getpgrp():
            # What a worker has started is in its group.
            os.killpg(pid, number)
        elif handle is None:
            os.kill(pid, number)
        else:
            signal.pidfd_send_signal(handle, number)
    except OSError:
        # It is gone, or may not be sent a signal.
        pass
    finally:
        if handle is not None:
            os.close(handle)


def ended(process: subprocess.Popen[bytes], seconds: float = 0.0) -> int | None:
    """The status with which a child ended, for whose end this waits so long; None = it runs.

    `Popen.wait` would wait for ever where an interrupt came in the middle of a `Popen.poll`: that
    leaves its lock locked.
    """
    until = time.monotonic() + seconds
    while process.returncode is None:
        try:
            pid, status = os.waitpid(process.pid, os.WNOHANG)
        except ChildProcessError:
            # Its end was seen, and an interrupt came before that was noted.
            process.returncode = 0
            break
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
        elif time.monotonic() >= until:
            return None
        else:
            time.sleep(0.005)
    return process.returncode


def await_none(folder: str, seconds: float) -> bool:
    """Waits until no process of this folder runs any more; whether that is so."""
    until = time.monotonic() + seconds
    while processes_of(folder):
        if time.monotonic() > until:
            return False
        time.sleep(0.005)
    return True


def end_processes(folder: str, grace: float = GRACE) -> bool:
    """Ends all processes of this folder: asks the broker and its execd to end all, kills what is
    left after `grace` seconds. Returns whether none is left."""
    for pid, words in processes_of(folder).items():
        if "--state" in words or "--role-execd" in words:
            _signal(pid, words, signal.SIGTERM)
    if await_none(folder, grace):
        return True
    until = time.monotonic() + KILLED
    while time.monotonic() < until:
        # Again and again, because execd may have been just about to start one more.
        for pid, words in processes_of(folder).items():
            _signal(pid, words, signal.SIGKILL)
        if await_none(folder, 0.05):
            return True
    return False


class Guard:
    """The process beside this one that cleans up after it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._forget()
        os.register_at_fork(after_in_child=self._fork)

    def _forget(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._folders: list[str] = []

    def _fork(self) -> None:
        # The brokers are those of the parent, and this end of the pipe must not outlive it.
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process.returncode = 0
        self._lock = threading.Lock()
        self._forget()

    def add(self, folder: str) -> None:
        """Has this folder, which must be absolute and without links, cleaned up."""
        with self._lock:
            self._folders.append(folder)
            if not self._say(f"+{folder}\n"):
                self._start()

    def remove(self, folder: str) -> None:
        """No more: it is gone."""
        with self._lock:
            if folder in self._folders:
                self._folders.remove(folder)
                self._say(f"-{folder}\n")

    @property
    def pid(self) -> int | None:
        """The process, if there is one."""
        return None if self._process is None else self._process.pid

    def _say(self, line: str) -> bool:
        if self._process is None or self._process.stdin is None:
            return False
        try:
            self._process.stdin.write(os.fsencode(line))
        except OSError:
            return False
        return True

    def _start(self) -> None:
        if self._process is not None:
            # Somebody ended it.
            assert self._process.stdin is not None
            self._process.stdin.close()
            ended(self._process, KILLED)
        # Of a session of its own, so that neither Ctrl-C nor the end of a terminal reaches it.
        command = [sys.executable or "python3", "-I", "-S", __file__]
        self._process = subprocess.Popen(command, bufsize=0, stdin=subprocess.PIPE, cwd="/",
                                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                         start_new_session=True)
        for folder in self._folders:
            self._say(f"+{folder}\n")


def _main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    folders: list[str] = []
    for line in sys.stdin.buffer:
        folder = os.fsdecode(line[1:-1])
        if line.startswith(b"+"):
            folders.append(folder)
        elif folder in folders:
            folders.remove(folder)
    for folder in folders:
        end_processes(folder)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _main()
