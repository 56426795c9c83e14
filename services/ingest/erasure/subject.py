"""Whose data is erased."""

from dataclasses import dataclass, field

from services.kernel.erasing import subject_hash


@dataclass(frozen=True, slots=True)
class Subject:
    """One value of one attribute key of a project."""

    project: str
    attribute_key: str
    value: str = field(repr=False)

    @property
    def hash(self) -> str:
        """What the log and receipts name it by."""
        return subject_hash(self.project, self.attribute_key, self.value)
