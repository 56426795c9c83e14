"""The templates there are. Money is of one currency, and what was declined counts nowhere.

The first four are the components that custom insights once had, with their parameters, bounds and defaults.
"""

from dataclasses import dataclass

from services.insights.template_parameters import Parameter, ParameterType


@dataclass(frozen=True, slots=True)
class Template:
    """A query with places. `text` is INFER that names them in braces; it has no other braces."""

    template_id: str
    description: str
    text: str
    parameters: tuple[Parameter, ...]


_MONEY = 'currency = {currency} AND status <> "declined"'
_SPENT = f'credit_debit_indicator = "debit" AND {_MONEY}'
_RECEIVED = f'credit_debit_indicator = "credit" AND {_MONEY}'
_IN_PERIOD = "DATETIME_FROM(date_time, {period})"


def library() -> tuple[Template, ...]:
    """All templates, by id."""
    found = (*_components(), *_spending(), *_income(), *_absence())
    return tuple(sorted(found, key=lambda template: template.template_id))


def _components() -> tuple[Template, ...]:
    return (
        Template(
            "all",
            "Spent more than an amount in all within a period.",
            _infer(f"WHERE {_SPENT} AND {_IN_PERIOD} HAVING ABS(SUM(amount)) > {{amount}}"),
            (_amount("More than this was spent."), _period(), _currency()),
        ),
        Template(
            "expenditure_l2s",
            "Spent more than an amount in some categories within a period.",
            _infer(
                f"WHERE category_l2 IN {{categories}} AND {_SPENT} AND {_IN_PERIOD} "
                "HAVING ABS(SUM(amount)) > {amount}"
            ),
            (_categories(), _amount("More than this was spent."), _period(), _currency()),
        ),
        Template(
            "expenditure_merchant",
            "Spent more than an amount at some merchants within a period.",
            _infer(
                f"WHERE merchant IN {{merchants}} AND {_SPENT} AND {_IN_PERIOD} HAVING ABS(SUM(amount)) > {{amount}}"
            ),
            (_merchants(), _amount("More than this was spent."), _period(), _currency()),
        ),
        Template(
            "income_l2s",
            "Received more than an amount in some categories within a period.",
            _infer(
                f"WHERE category_l2 IN {{categories}} AND {_RECEIVED} AND {_IN_PERIOD} HAVING SUM(amount) > {{amount}}"
            ),
            (_categories(), _amount("More than this was received."), _period(), _currency()),
        ),
    )


def _spending() -> tuple[Template, ...]:
    return (
        Template(
            "abroad",
            "Spent more than an amount in other countries within a period.",
            _infer(
                f'WHERE country <> {{home}} AND country <> "" AND {_SPENT} AND {_IN_PERIOD} '
                "HAVING ABS(SUM(amount)) > {amount}"
            ),
            (
                Parameter("home", "The country that is not abroad, as the data writes it.", ParameterType.TEXT, "GB"),
                _amount("More than this was spent abroad."),
                _period(),
                _currency(),
            ),
        ),
        Template(
            "big_spender",
            "Spent at least an amount in a single payment within a period.",
            _infer(f"WHERE ABS(amount) >= {{amount}} AND {_SPENT} AND {_IN_PERIOD}"),
            (_amount("At least this was paid at once.", "1000"), _period(), _currency()),
        ),
        Template(
            "gambler",
            "Gambled away more than a share of the income within a period.",
            _infer(
                f"WHERE category_l1 IN {{categories}} AND {_SPENT} AND {_IN_PERIOD} "
                f"HAVING ABS(SUM(amount)) > SUM(SELECT amount FROM transactions "
                f"WHERE {{tag}} IN tags AND {_MONEY} AND {_IN_PERIOD}) * {{share}}"
            ),
            (
                Parameter(
                    "categories",
                    "The first-level categories that count as gambling.",
                    ParameterType.TEXTS,
                    "gambling_and_lotteries",
                ),
                _share("More than this part of the income; 0: any gambling at all.", "0.1"),
                _tag(),
                _period(),
                _currency(),
            ),
        ),
        Template(
            "spree",
            "Spent more than a share of a long period's expenditure within a short one.",
            _infer(
                f"WHERE {_SPENT} AND {_IN_PERIOD} HAVING ABS(SUM(amount)) > ABS(SUM(SELECT amount FROM transactions "
                f"WHERE {_SPENT} AND DATETIME_FROM(date_time, {{beside}}))) * {{share}}"
            ),
            (
                _share("More than this part of the long period's expenditure.", "0.5"),
                _period(),
                Parameter("beside", "The long period.", ParameterType.PERIOD, "12M", "1D", "12M"),
                _currency(),
            ),
        ),
    )


def _income() -> tuple[Template, ...]:
    credited = f"{{tag}} IN tags AND {_RECEIVED}"
    return (
        Template(
            "salary_arrived",
            "Was paid a salary of at least an amount just now.",
            _infer(f"WHERE amount >= {{amount}} AND {credited} AND {_IN_PERIOD}"),
            (_amount("A salary is at least this."), _tag(), _period("How long it is news.", "3D"), _currency()),
        ),
        Template(
            "salary_missing",
            "Was paid a salary before, but not lately.",
            _infer(
                f"WHERE amount >= {{amount}} AND {credited} AND DATETIME_FROM(date_time, {{beside}}) "
                f"AND DATETIME_TO(date_time, {{period}}) "
                "HAVING SUM(amount) > 0 AND SUM(SELECT 1 FROM transactions "
                f"WHERE amount >= {{amount}} AND {credited} AND {_IN_PERIOD}) = 0"
            ),
            (
                _amount("A salary is at least this."),
                _tag(),
                _period("For how long there was none.", "35D"),
                Parameter("beside", "How far back there was one.", ParameterType.PERIOD, "6M", "1D", "12M"),
                _currency(),
            ),
        ),
    )


def _absence() -> tuple[Template, ...]:
    paid = 'credit_debit_indicator = "debit" AND status <> "declined"'
    bought = f"merchant IN {{merchants}} AND {paid}"
    return (
        Template(
            "lapsed_customer",
            "Spent more than an amount in all, but nothing within a period. Reads rows of any age.",
            _infer(
                f"WHERE {_SPENT} HAVING ABS(SUM(amount)) > {{amount}} AND "
                f"SUM(SELECT 1 FROM transactions WHERE {paid} AND {_IN_PERIOD}) = 0"
            ),
            (
                _amount("More than this was spent in all."),
                _period("For how long there was nothing, in any currency.", "90D"),
                _currency(),
            ),
        ),
        Template(
            "new_at_merchant",
            "Bought at some merchants for the first time within a period. Reads rows of any age.",
            _infer(
                f"WHERE {bought} AND {_IN_PERIOD} "
                f"HAVING SUM(SELECT 1 FROM transactions WHERE {bought} AND {_IN_PERIOD}) > 0 "
                f"AND SUM(SELECT 1 FROM transactions WHERE {bought} AND DATETIME_TO(date_time, {{period}})) = 0"
            ),
            (_merchants(), _period("How long somebody is new.")),
        ),
    )


def _infer(clauses: str) -> str:
    return f"INFER {{identifier}} FROM transactions {clauses}"


def _amount(description: str, default: str = "100") -> Parameter:
    return Parameter("amount", description, ParameterType.NUMBER, default, "0.01", "1000000000000")


def _share(description: str, default: str) -> Parameter:
    return Parameter("share", description, ParameterType.NUMBER, default, "0", "1000")


def _period(description: str = "How far back to look.", default: str = "1M") -> Parameter:
    return Parameter("period", description, ParameterType.PERIOD, default, "1D", "12M")


def _currency() -> Parameter:
    return Parameter("currency", "The currency that is looked at.", ParameterType.TEXT, "GBP")


def _categories() -> Parameter:
    return Parameter("categories", "The second-level categories.", ParameterType.TEXTS)


def _merchants() -> Parameter:
    return Parameter("merchants", "The merchants.", ParameterType.TEXTS)


def _tag() -> Parameter:
    return Parameter("tag", "The tag that says what income is.", ParameterType.TEXT, "income")
