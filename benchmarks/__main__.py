"""All figures: `python -m benchmarks`, or some: `python -m benchmarks attributes serving`."""

import importlib
import os
import platform
import sys

NAMES = (
    *("attributes", "asof", "datasets", "export", "insights"),
    *("ingest", "properties", "serving", "segments", "log", "decode", "rules"),
)


def main() -> int:
    """Runs the benchmarks that are named, or all."""
    names = sys.argv[1:] or NAMES
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        print(f"there is no benchmark {unknown[0]}: there are {', '.join(NAMES)}", file=sys.stderr)
        return 2
    print(f"Python {platform.python_version()} on {platform.machine()}, {os.cpu_count()} cores")
    for name in names:
        for table in importlib.import_module(f"benchmarks.bench_{name}").run():
            table.print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
