"""Pages of lists (AIP 158): sizes, and opaque signed tokens."""

from collections.abc import Mapping
from pathlib import Path

Json = str | int | float | bool | None


def page_size(requested: int, *, default: int = 50, maximum: int = 1000) -> int:
    """The size to use: 0 means `default`, too large is cut, negative raises InvalidArgument."""
    raise NotImplementedError


class PageTokens:
    """Makes and checks tokens. A token belongs to one `scope`: the project, the method, the filter."""

    def __init__(self, secret: bytes) -> None:
        raise NotImplementedError

    @classmethod
    def open(cls, secret: str, data_dir: Path) -> "PageTokens":
        """From the setting, or, when that is empty, a random secret kept in `data_dir`."""
        raise NotImplementedError

    def sign(self, cursor: Mapping[str, Json], *scope: str) -> str:
        """The token that leads to `cursor`."""
        raise NotImplementedError

    def verify(self, token: str, *scope: str) -> dict[str, Json]:
        """The cursor of a token ({} for the empty token); InvalidArgument when it is not ours or of another scope."""
        raise NotImplementedError
