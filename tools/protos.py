"""Generates the Python stubs from `protos/`: the path of a `.proto` is its import path.

Run as a script by `make protos`, and by the build of wheels (`hatch_build.py`). Nothing generated is committed.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import google.longrunning
import grpc_tools
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent


def sources() -> list[str]:
    """The `.proto` files of the project, relative to `protos/`."""
    return sorted(str(path.relative_to(ROOT / "protos")) for path in (ROOT / "protos").rglob("*.proto"))


def include_paths(scratch: Path) -> list[str]:
    """Where imports are looked up: our files, Google's common ones, and the well-known types.

    googleapis-common-protos ships `google/longrunning/operations.proto` under another file name, because a Python
    module of that name wraps it; `scratch` gets a copy under the name that its descriptor carries.
    """
    common = Path(google.longrunning.__path__[0]).parent.parent
    renamed = scratch / "google" / "longrunning" / "operations.proto"
    renamed.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(common / "google" / "longrunning" / "operations_proto.proto", renamed)
    well_known = Path(grpc_tools.__path__[0]) / "_proto"
    return [f"-I{ROOT / 'protos'}", f"-I{scratch}", f"-I{common}", f"-I{well_known}"]


def generate(target: Path, extra: list[str] | None = None) -> None:
    """Writes stubs with type annotations below `target`; raises RuntimeError when protoc refuses a file."""
    with tempfile.TemporaryDirectory() as scratch:
        outputs = [
            f"--python_out={target}",
            f"--grpc_python_out={target}",
            f"--mypy_out=quiet:{target}",
            f"--mypy_grpc_out=quiet:{target}",
        ]
        run(include_paths(Path(scratch)) + (outputs if extra is None else extra) + sources())


def describe(image: Path) -> None:
    """Writes a descriptor image with imports and comments: what buf lints and compares."""
    generate(image.parent, ["--include_imports", "--include_source_info", f"--descriptor_set_out={image}"])


def run(arguments: list[str]) -> None:
    """Runs protoc in this process; the mypy plugins are found beside this interpreter."""
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    if protoc.main(["protoc", *arguments]) != 0:
        raise RuntimeError("protoc refused the files: see above")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        describe(Path(sys.argv[1]).resolve())
    else:
        generate(ROOT)
