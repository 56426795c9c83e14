"""INFER's types: what kind a value is, whether it is an array, and whether there is one of it for each row."""

from dataclasses import dataclass, replace
from enum import StrEnum


class Kind(StrEnum):
    """What a single value is."""

    STRING = "string"
    NUMERIC = "numeric"
    BOOLEAN = "boolean"
    DATETIME = "datetime"


@dataclass(frozen=True, slots=True)
class Type:
    """The type of a term.

    An array is a value of its own (a column of tags holds one array a row); a vector is one value for each row.
    """

    kind: Kind
    array: bool = False
    vector: bool = False

    @property
    def name(self) -> str:
        """As the language's document writes it, without the vector part: `string`, `stringArray`, ..."""
        return f"{self.kind}Array" if self.array else str(self.kind)

    def as_vector(self, vector: bool = True) -> "Type":
        """The same, with one value for each row, or with a single one."""
        return replace(self, vector=vector)

    @classmethod
    def named(cls, name: str, *, vector: bool = False) -> "Type":
        """The type of a name such as `numeric` or `stringArray`. Raises ValueError."""
        kind = Kind(name.removesuffix("Array"))
        array = name.endswith("Array")
        if array and kind is Kind.DATETIME:
            raise ValueError("there are no arrays of datetimes")
        return cls(kind, array, vector)

    def __str__(self) -> str:
        return f"{self.name} vector" if self.vector else self.name


BOOLEAN = Type(Kind.BOOLEAN)
NUMERIC = Type(Kind.NUMERIC)
STRING = Type(Kind.STRING)
DATETIME = Type(Kind.DATETIME)
