"""Makes the stubs when a wheel, or an editable install, is built: they are generated, not committed."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class StubsHook(BuildHookInterface[Any]):
    """Runs `tools/protos.py`; what it writes, which git ignores, is among the artifacts in pyproject.toml."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Generates into the source tree; a source distribution carries the protos and generates when it is built."""
        if self.target_name == "sdist":
            return
        root = Path(self.root)
        if (root / "protos").is_dir():
            load(root / "tools" / "protos.py").generate(root)


def load(path: Path) -> ModuleType:
    """The module in a file: `tools` is no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise RuntimeError(f"cannot load {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
