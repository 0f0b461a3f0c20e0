"""The package: wheel, sdist and editable installation, each made without a network and without any
other package, and used in a fresh virtual environment."""

from __future__ import annotations

import configparser
import email
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import unittest
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORKSPACE = ROOT.parent.parent

#: No build may ask anybody: an index that is asked all the same is a port where nobody listens.
OFFLINE = {
    "PIP_CONFIG_FILE": os.devnull,
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_NO_CACHE_DIR": "1",
    "PIP_NO_INPUT": "1",
    "HTTP_PROXY": "http://127.0.0.1:9",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "ALL_PROXY": "http://127.0.0.1:9",
}


def environment(**more: str) -> dict[str, str]:
    """The environment without what could lead Python to the sources of this folder."""
    kept = {key: value for key, value in os.environ.items()
            if not key.startswith(("PYTHON", "PIP"))}
    return {**kept, **OFFLINE, **more}


def run(*command: str | Path, folder: str | Path = "/", **more: str) -> str:
    """Runs a program to its end; what it wrote."""
    done = subprocess.run([str(word) for word in command], cwd=folder, env=environment(**more),
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
    if done.returncode:
        raise AssertionError(f"{command} ended with status {done.returncode}:\n{done.stdout}")
    return done.stdout


def hook(sources: Path, name: str, out: str | Path, **more: str) -> Path:
    """Calls a hook of the backend as pip and build do; the file that it made."""
    code = ("import sys; sys.path.insert(0, '_build'); import isect_backend;"
            f"print(isect_backend.{name}(sys.argv[1]))")
    made = run(sys.executable, "-I", "-B", "-c", code, str(out), folder=sources, **more)
    return Path(out, made.strip())


def copy_of_sources(folder: str | Path) -> Path:
    """A copy of the package that stands alone, as of a checkout of this folder only."""
    there = Path(folder, "sources")
    ignored = shutil.ignore_patterns("__pycache__", ".mypy_cache", "dist")
    shutil.copytree(ROOT, there, ignore=ignored)
    return there


class Folder(unittest.TestCase):
    """A test with a folder of its own."""

    def setUp(self) -> None:
        made = tempfile.TemporaryDirectory(prefix="isect-package-")
        self.addCleanup(made.cleanup)
        self.folder = Path(made.name)


class Declared(unittest.TestCase):
    """What pyproject.toml says."""

    def test_the_version_is_that_of_the_workspace(self) -> None:
        cargo = WORKSPACE / "Cargo.toml"
        if not cargo.exists():
            self.skipTest("these sources stand alone")
        text = cargo.read_text("utf-8")
        found = re.search(r'^\[workspace\.package\]\nversion = "([^"]+)"', text, re.MULTILINE)
        assert found, "Cargo.toml says the version of the workspace"
        pyproject = (ROOT / "pyproject.toml").read_text("utf-8")
        self.assertIn(f'\nversion = "{found[1]}"\n', pyproject)

    @unittest.skipIf(sys.version_info < (3, 11), "Python 3.10 has no tomllib")
    def test_the_backend_reads_pyproject_as_a_reader_of_toml_does(self) -> None:
        if sys.version_info >= (3, 11):
            import json
            import tomllib

            code = ("import sys, json; sys.path.insert(0, '_build'); import isect_backend;"
                    "print(json.dumps(isect_backend.project()))")
            read = json.loads(run(sys.executable, "-I", "-B", "-c", code, folder=ROOT))
            whole = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
            options = whole.pop("optional-dependencies")
            entries = whole.pop("entry-points")
            self.assertEqual(read["project"], whole)
            self.assertEqual(read["project.optional-dependencies"], options)
            for group, table in entries.items():
                self.assertEqual(read[f"project.entry-points.{group}"], table)


class Archives(Folder):
    """The files that are made."""

    def test_the_wheel_has_what_belongs_to_it_and_nothing_else(self) -> None:
        wheel = hook(ROOT, "build_wheel", self.folder)
        sources = {path.relative_to(ROOT / "src").as_posix()
                   for path in (ROOT / "src").rglob("*.py")} | {"isect/py.typed"}
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            info = names[-1].partition("/")[0]
            inside = [name.startswith(info) for name in names]
            self.assertEqual([*zip(inside, names)], sorted(zip(inside, names)),
                             "the order must not be that of the file system")
            self.assertRegex(wheel.name, r"^isect-[0-9.]+-py3-none-any\.whl$")
            self.assertEqual({name for name in names if not name.startswith(info)}, sources)
            about = email.message_from_bytes(archive.read(f"{info}/METADATA"))
            self.assertEqual(about["Name"], "isect")
            self.assertEqual(about["Requires-Python"], ">=3.10")
            self.assertEqual(about["License-Expression"], "MIT OR Apache-2.0")
            self.assertEqual(about["Description-Content-Type"], "text/markdown")
            readme = (ROOT / "README.md").read_text("utf-8")
            self.assertEqual(archive.read(f"{info}/METADATA").decode().partition("\n\n")[2], readme)
            # Nothing is needed; what is not wanted by an extra would be needed by all.
            needs = about.get_all("Requires-Dist") or []
            self.assertEqual([need for need in needs if "extra ==" not in need], [])
            self.assertIn('argon2-cffi>=21.2; extra == "tokens"', needs)
            for name in ("LICENSE-MIT", "LICENSE-APACHE"):
                licence = archive.read(f"{info}/licenses/{name}")
                self.assertEqual(licence, (ROOT / name).read_bytes())
                self.assertIn(name, about.get_all("License-File") or [])
                if WORKSPACE.joinpath("Cargo.toml").exists():
                    self.assertEqual(licence, WORKSPACE.joinpath(name).read_bytes())
            entries = configparser.ConfigParser()
            entries.read_string(archive.read(f"{info}/entry_points.txt").decode())
            self.assertEqual(dict(entries["pytest11"]), {"isect": "isect.pytest_plugin"})
            self.assertEqual(archive.read(f"{info}/WHEEL").decode().splitlines()[-1],
                             "Tag: py3-none-any")
            self.assertTrue(all(item.external_attr >> 16 == 0o100644
                                for item in archive.infolist()))

    def test_the_sdist_gives_the_same_wheel_as_the_sources(self) -> None:
        archive = hook(ROOT, "build_sdist", self.folder)
        with tarfile.open(archive) as packed:
            self.assertEqual(packed.getnames(), sorted(packed.getnames()))
            if hasattr(tarfile, "data_filter"):
                packed.extractall(self.folder, filter="data")
            else:
                packed.extractall(self.folder)
        unpacked = self.folder / archive.name.removesuffix(".tar.gz")
        self.assertTrue((unpacked / "PKG-INFO").read_text("utf-8").startswith("Metadata-Version:"))
        self.assertFalse((unpacked / "LICENSE-MIT").is_symlink())
        (self.folder / "again").mkdir()
        again = hook(unpacked, "build_wheel", self.folder / "again")
        wheel = hook(ROOT, "build_wheel", self.folder)
        self.assertEqual(again.name, wheel.name)
        self.assertEqual(digest(again), digest(wheel))
        # And an sdist of the sdist is the sdist.
        self.assertEqual(digest(hook(unpacked, "build_sdist", self.folder / "again")),
                         digest(archive))

    def test_the_same_sources_give_the_same_bytes_at_any_time(self) -> None:
        sources = copy_of_sources(self.folder)
        made = {}
        for name in ("build_wheel", "build_sdist"):
            first = digest(hook(sources, name, self.folder))
            for path in sources.rglob("*"):
                os.utime(path, (1e9, 1e9))
            self.assertEqual(digest(hook(sources, name, self.folder, TZ="Asia/Tokyo")), first)
            dated = hook(sources, name, self.folder, SOURCE_DATE_EPOCH="1700000000")
            made[name] = dated
            self.assertNotEqual(digest(dated), first, "the date that is given is used")
        with zipfile.ZipFile(made["build_wheel"]) as archive:
            self.assertEqual({item.date_time for item in archive.infolist()},
                             {(2023, 11, 14, 22, 13, 20)})
        with tarfile.open(made["build_sdist"]) as packed:
            self.assertEqual({item.mtime for item in packed}, {1700000000})

    def test_the_metadata_that_is_prepared_is_that_of_the_wheel(self) -> None:
        folder = hook(ROOT, "prepare_metadata_for_build_wheel", self.folder)
        with zipfile.ZipFile(hook(ROOT, "build_wheel", self.folder)) as archive:
            there = {name for name in archive.namelist() if name.startswith(folder.name)}
            for name in there - {f"{folder.name}/RECORD"}:
                self.assertEqual(archive.read(name), (self.folder / name).read_bytes(), name)


def digest(path: Path) -> str:
    """The checksum of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Installed(Folder):
    """Installations in a fresh virtual environment; one for all, because each takes seconds."""

    home: str
    python: Path

    @classmethod
    def setUpClass(cls) -> None:
        cls.home = tempfile.mkdtemp(prefix="isect-venv-")
        cls.addClassCleanup(shutil.rmtree, cls.home)
        venv.create(cls.home, with_pip=True, symlinks=True)
        cls.python = Path(cls.home, "bin", "python")

    def pip(self, *words: str | Path, **more: str) -> str:
        """Runs pip without an index."""
        return run(self.python, "-m", "pip", *words, **more)

    def where(self) -> Path:
        """Where the package is found."""
        return Path(run(self.python, "-c", "import isect._wire as it; print(it.__file__)").strip())

    def test_a_folder_is_installed_without_a_network_and_used_without_the_sources(self) -> None:
        sources = copy_of_sources(self.folder)
        self.pip("install", "--no-index", "--force-reinstall", sources)
        shutil.rmtree(sources)
        self.assertTrue(self.where().is_relative_to(Path(self.home).resolve()), self.where())
        shown = self.pip("show", "-f", "isect")
        self.assertRegex(shown, r"(?m)^Requires: *$")
        self.assertIn("isect/py.typed", shown)
        self.pip("check")
        script = ("import importlib, pkgutil, isect\n"
                  "for it in pkgutil.iter_modules(isect.__path__):\n"
                  "    if it.name != 'pytest_plugin': importlib.import_module('isect.' + it.name)\n"
                  "print('all')")
        self.assertEqual(run(self.python, "-W", "error", "-c", script), "all\n")
        self.serves()

    def serves(self) -> None:
        """What is installed starts a broker and a worker, and asks it."""
        if shutil.which("isectd", path=os.environ.get("ISECT_BIN") or os.environ["PATH"]) is None:
            self.skipTest("isectd is not there; say where in ISECT_BIN")
        file = self.folder / "program.py"
        file.write_text(
            "from isect import testing\n"
            "def upper(request): return request.body.upper()\n"
            "if __name__ == '__main__':\n"
            "    with testing.broker() as broker:\n"
            "        broker.worker('upper', upper)\n"
            "        with broker.connect() as client: print(client.call('upper', 'hello'))\n")
        # Python's own warnings are errors: what is not closed is found.
        self.assertEqual(run(self.python, "-W", "error", file), "b'HELLO'\n")

    def test_an_editable_installation_is_the_sources_themselves(self) -> None:
        sources = copy_of_sources(self.folder)
        self.pip("install", "--no-index", "--force-reinstall", "-e", sources)
        self.assertEqual(self.where(), sources.resolve() / "src" / "isect" / "_wire.py")
        new = sources / "src" / "isect" / "_is_new.py"
        new.write_text("ANSWER = 42\n")
        self.assertEqual(run(self.python, "-c", "import isect._is_new as n; print(n.ANSWER)"),
                         "42\n")
        self.pip("uninstall", "-y", "isect")
        with self.assertRaisesRegex(AssertionError, "No module named 'isect'"):
            self.where()

    def test_the_extra_asks_for_its_package(self) -> None:
        # Without an index it can't be had: the error names what was asked for.
        with self.assertRaisesRegex(AssertionError, "No matching distribution found for argon2"):
            self.pip("install", "--no-index", "--force-reinstall", f"{ROOT}[tokens]")


if __name__ == "__main__":
    unittest.main()
