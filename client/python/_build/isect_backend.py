"""Builds the package: the hooks of PEP 517 (wheel, sdist) and of PEP 660 (editable), with nothing
but Python's own library, so that no build needs the network.

The same sources give the same bytes: the files are sorted, and their time is SOURCE_DATE_EPOCH or
1980. All that is said of the package stands in pyproject.toml, of which a small part of TOML is
read here (Python 3.10 has no tomllib): tables, strings in double quotes, and arrays of those.
"""

from __future__ import annotations

import ast
import base64
import gzip
import hashlib
import io
import os
import re
import tarfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: What an sdist has besides the sources and what pyproject.toml names.
_SDIST = ("_build/*.py", "examples/*.py", "tests/*.py", "pyproject.toml")
#: 1980, the first second that a zip file can say.
_EPOCH = 315532800
_WHEEL = "Wheel-Version: 1.0\nGenerator: isect_backend\nRoot-Is-Purelib: true\nTag: py3-none-any\n"

Value = str | list[str]
Settings = dict[str, str | list[str]] | None


def project() -> dict[str, dict[str, Value]]:
    """The tables of pyproject.toml whose values are strings and arrays of strings."""
    tables: dict[str, dict[str, Value]] = {}
    table: dict[str, Value] = {}
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    pattern = r'^\[([^\]\n]+)\]$|^([\w-]+) = (".*"|\[[^\]]*\])$'
    for name, key, value in re.findall(pattern, text, re.MULTILINE):
        if name:
            table = tables.setdefault(name, {})
        else:
            table[key] = ast.literal_eval(value)
    return tables


def _one(key: str) -> str:
    value = project()["project"][key]
    assert isinstance(value, str), f"{key} of pyproject.toml is one string"
    return value


def _many(key: str) -> list[str]:
    value = project()["project"][key]
    assert isinstance(value, list), f"{key} of pyproject.toml is an array"
    return value


def _stem() -> str:
    return f"{_one('name')}-{_one('version')}"


def metadata() -> str:
    """The file METADATA of a wheel, which is PKG-INFO in an sdist (PEP 566, 639)."""
    lines = ["Metadata-Version: 2.4", f"Name: {_one('name')}", f"Version: {_one('version')}",
             f"Summary: {_one('description')}", f"Keywords: {','.join(_many('keywords'))}",
             f"License-Expression: {_one('license')}"]
    lines += [f"License-File: {name}" for name in _many("license-files")]
    lines += [f"Classifier: {name}" for name in _many("classifiers")]
    lines += [f"Requires-Python: {_one('requires-python')}"]
    lines += [f"Requires-Dist: {name}" for name in _many("dependencies")]
    for extra, needs in project()["project.optional-dependencies"].items():
        lines += [f"Provides-Extra: {extra}"]
        lines += [f'Requires-Dist: {need}; extra == "{extra}"' for need in needs]
    lines += ["Description-Content-Type: text/markdown", ""]
    return "\n".join(lines) + "\n" + (ROOT / _one("readme")).read_text("utf-8")


def _dist_info() -> dict[str, bytes]:
    begin = "project.entry-points."
    entries = [f"[{name[len(begin):]}]\n" + "".join(f"{key} = {value}\n"
                                                    for key, value in table.items())
               for name, table in project().items() if name.startswith(begin)]
    files = {"METADATA": metadata().encode(), "WHEEL": _WHEEL.encode(),
             "entry_points.txt": "\n".join(entries).encode()}
    for name in _many("license-files"):
        files[f"licenses/{name}"] = (ROOT / name).read_bytes()
    return {f"{_stem()}.dist-info/{name}": data for name, data in files.items()}


def _sources() -> dict[str, bytes]:
    paths = [path for path in (ROOT / "src").rglob("*") if path.name == "py.typed"
             or path.suffix == ".py"]
    return {path.relative_to(ROOT / "src").as_posix(): path.read_bytes() for path in paths}


def _time() -> int:
    return max(int(os.environ.get("SOURCE_DATE_EPOCH", _EPOCH)), _EPOCH)


def _write_wheel(folder: str, files: dict[str, bytes]) -> str:
    files = {**files, **_dist_info()}
    record = f"{_stem()}.dist-info/RECORD"
    lines = []
    for name, data in sorted(files.items()):
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(data)}\n")
    files[record] = ("".join(lines) + f"{record},,\n").encode()
    wheel = f"{_stem()}-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(folder, wheel), "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(files.items(), key=lambda item: (".dist-info/" in item[0], item)):
            info = zipfile.ZipInfo(name, time.gmtime(_time())[:6])
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3
            info.external_attr = 0o100644 << 16
            archive.writestr(info, data)
    return wheel


def _write_metadata(folder: str) -> str:
    for name, data in _dist_info().items():
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return f"{_stem()}.dist-info"


def build_wheel(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None
) -> str:
    """Makes the wheel in a directory, and returns its name."""
    return _write_wheel(wheel_directory, _sources())


def build_editable(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None
) -> str:
    """Makes a wheel that only says where the sources are, and returns its name."""
    return _write_wheel(wheel_directory, {"__editable__.isect.pth": f"{ROOT / 'src'}\n".encode()})


def build_sdist(sdist_directory: str, config_settings: Settings = None) -> str:
    """Makes the archive of the sources in a directory, and returns its name."""
    files = {f"src/{name}": data for name, data in _sources().items()}
    for pattern in (*_SDIST, _one("readme"), *_many("license-files")):
        for path in ROOT.glob(pattern):
            files[path.relative_to(ROOT).as_posix()] = path.read_bytes()
    files["PKG-INFO"] = metadata().encode()
    name = f"{_stem()}.tar.gz"
    with (open(os.path.join(sdist_directory, name), "wb") as out,
          gzip.GzipFile("", "wb", 9, out, _time()) as packed,
          tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive):
        for inside, data in sorted(files.items()):
            info = tarfile.TarInfo(f"{_stem()}/{inside}")
            info.size, info.mtime = len(data), _time()
            # As git knows them: examples can be executed.
            info.mode = 0o755 if data.startswith(b"#!") else 0o644
            archive.addfile(info, io.BytesIO(data))
    return name


def prepare_metadata_for_build_wheel(
    metadata_directory: str, config_settings: Settings = None
) -> str:
    """Writes what a wheel says of the package to a directory, and returns its folder there."""
    return _write_metadata(metadata_directory)


prepare_metadata_for_build_editable = prepare_metadata_for_build_wheel


def get_requires_for_build_wheel(config_settings: Settings = None) -> list[str]:
    """What a build needs besides Python: nothing."""
    return []


get_requires_for_build_editable = get_requires_for_build_wheel
get_requires_for_build_sdist = get_requires_for_build_wheel
