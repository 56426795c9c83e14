"""What else holds values of attribute keys, and can forget one."""

from typing import Protocol


class Forgets(Protocol):
    """A store beside the projection that holds key values: journals, memberships, files of its own.

    `app.py` lists them all. They are asked after the projection has forgotten the key, and again when an erasure goes
    on after a crash: forgetting what is not there is no error.
    """

    @property
    def store(self) -> str:
        """Its name in receipts, such as `segments`."""
        ...

    @property
    def unit(self) -> str:
        """What it counts, such as `entries`."""
        ...

    async def forget(self, project: str, attribute_key: str, value: str) -> int:
        """Forgets a key value for good, also in what it has on disk; returns how much there was."""
        ...
