"""Data sources: what a query may read after FROM."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from services.insights.language.types import Type


@dataclass(frozen=True)
class SourceSchema:
    """A source and its columns, in order: one row for each event of a customer.

    `time_column` is the datetime that a query bounds with DATETIME_FROM. `amount_column` and `currency_column`, and
    `status_column`, are what the warnings about mixed currencies and pending rows look at; "" when there is none.
    """

    name: str
    columns: Mapping[str, Type]
    time_column: str = "date_time"
    amount_column: str = ""
    currency_column: str = ""
    status_column: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", MappingProxyType(dict(self.columns)))

    def __hash__(self) -> int:
        return hash((self.name, tuple(self.columns.items())))


Sources = Mapping[str, SourceSchema]


def sources_of(schemas: Iterable[SourceSchema]) -> Sources:
    """Schemas by name."""
    return MappingProxyType({schema.name: schema for schema in schemas})


def transactions() -> SourceSchema:
    """The built-in source: a customer's transactions, with the document's 14 columns in its order.

    `amount` is negative for a debit.
    """
    types = {
        "date_time": "datetime",
        "credit_debit_indicator": "string",
        "amount": "numeric",
        "currency": "string",
        "status": "string",
        "category_l1": "string",
        "category_l2": "string",
        "merchant": "string",
        "processor": "string",
        "regularity_frequency": "string",
        "country": "string",
        "transaction_types": "stringArray",
        "names": "stringArray",
        "tags": "stringArray",
    }
    return SourceSchema(
        "transactions",
        {name: Type.named(kind) for name, kind in types.items()},
        time_column="date_time",
        amount_column="amount",
        currency_column="currency",
        status_column="status",
    )
