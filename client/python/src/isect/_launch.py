"""What a worker process of `isect.testing` does first: it finds the function that it serves."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any


#: Whether this process is a worker of a test that imports the file of the test.
is_importing = False


def serve(module: str, file: str, name: str, options: dict[str, Any]) -> None:
    """Serves the function of this name of a module, or of a file if the module can't be had."""
    global is_importing
    is_importing = True
    target: Any = _load(module, file)
    is_importing = False
    for part in name.split("."):
        target = getattr(target, part)
    import isect

    isect.run(target, **options)


def _load(module: str, file: str) -> ModuleType:
    # A file that was started by name is `__main__` there; here its lines for that must not run.
    if module != "__main__":
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError as e:
            if e.name is None or e.name.partition(".")[0] != module.partition(".")[0]:
                raise
    known = "__isect_main__" if module == "__main__" else module
    spec = importlib.util.spec_from_file_location(known, file)
    assert spec is not None and spec.loader is not None, f"{file} can't be imported"
    made = importlib.util.module_from_spec(spec)
    sys.modules[known] = made
    spec.loader.exec_module(made)
    return made
