"""README.md: every block of it is run, from the installation on, by a person who has nothing but
the sources and isect's programs."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import unittest
import venv
from pathlib import Path

from isect import _guard, testing

ROOT = Path(__file__).resolve().parent.parent


def blocks() -> list[tuple[str, str]]:
    """Kind and text of each block."""
    text = (ROOT / "README.md").read_text("utf-8")
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


class Readme(unittest.TestCase):
    """The page of a newcomer."""

    def setUp(self) -> None:
        made = tempfile.TemporaryDirectory(prefix="isect-", dir="/tmp")
        self.addCleanup(made.cleanup)
        self.home = Path(made.name).resolve()
        self.addCleanup(_guard.end_processes, str(self.home))
        programs = os.path.dirname(testing.program_named("isectd"))
        kept = {key: value for key, value in os.environ.items()
                if not key.startswith(("PYTHON", "PIP", "ISECT", "XDG"))}
        self.environment = {
            **kept, "HOME": str(self.home), "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull,
            "PATH": os.pathsep.join([f"{self.home}/venv/bin", programs, os.environ["PATH"]])}
        # The paths of the page are those of the folder of isect's sources.
        (self.home / "client").mkdir()
        (self.home / "client" / "python").symlink_to(ROOT)

    def run_it(self, *command: str) -> str:
        """Runs a program to its end; what it printed."""
        log = self.home / "log"
        with open(log, "w+", encoding="utf-8") as out:
            # Into a file: what goes on in the background would hold a pipe open.
            done = subprocess.run(command, cwd=self.home, env=self.environment, timeout=60,
                                  stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        text = log.read_text("utf-8")
        self.assertEqual(done.returncode, 0, f"{command}:\n{text}")
        return text

    def console(self, text: str) -> None:
        """Runs the lines of a terminal, and compares what they print where the page shows it."""
        for line in re.findall(r"^\$ .*\n(?:(?!\$ ).*\n)*", text, re.MULTILINE):
            command, _, shown = line[2:].partition("\n")
            if command == "isectd &":
                # No test uses the usual port; and the page need not say how long to wait.
                command = ("isectd --listen 127.0.0.1:0 --state ~/.local/state/isect --ports-file "
                           "ports 2>isectd.log & until [ -e ports ]; do sleep 0.01; done")
            out = self.run_it("sh", "-ec", command)
            if shown:
                self.assertEqual(out.rstrip("\n"), shown.rstrip("\n"), command)

    def python(self, text: str) -> None:
        """Runs a program, and compares what it prints with what the page says after `# →`."""
        out = self.run_it("python", "-W", "error", "-c", text)
        self.assertEqual(out.splitlines(), re.findall(r"# → (.*)", text))

    def test_each_block(self) -> None:
        venv.create(self.home / "venv", with_pip=True, symlinks=True)
        session = ""
        seen = set()
        for kind, text in blocks():
            seen.add(kind)
            named = re.match(r"(?:#!.*\n)?# (\w+\.py)\n", text)
            if kind == "console":
                self.console(text)
            elif named:
                (self.home / named[1]).write_text(text, "utf-8")
            else:
                # Those of one page follow each other in one session.
                session += text
        self.python(session)
        self.assertEqual(seen, {"console", "python"})

    def test_lines_are_short_enough_for_a_page(self) -> None:
        for number, line in enumerate((ROOT / "README.md").read_text("utf-8").splitlines(), 1):
            self.assertLessEqual(len(line), 100, f"line {number}")


if __name__ == "__main__":
    unittest.main()
