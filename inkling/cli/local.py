"""What only runs where the services are installed: they are imported late, and their absence is explained."""

import contextlib
from collections.abc import Iterator

from inkling.cli.console import fail


@contextlib.contextmanager
def needing(extra: str) -> Iterator[None]:
    """Around imports of services: a missing package becomes a message that names the extra to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        fail(f"this command runs the services' own code, and {error.name} is missing: pip install 'inkling[{extra}]'")
