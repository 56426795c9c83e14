"""What the executor needs of the world: where events, properties and webhooks go, and who said no."""

from dataclasses import dataclass
from typing import Protocol

from services.insights.actions.outbox import Outgoing


class RefusedError(Exception):
    """It will never work: `reason` is for programs, and quotes nothing."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class LaterError(Exception):
    """It may work later: `reason` is for programs."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Delivery(Protocol):
    """Does one thing of an action. All calls may be repeated with the same action: it is done once."""

    async def fire(self, action: Outgoing) -> None:
        """Fires an event. Raises RefusedError and LaterError."""
        ...

    async def set_property(self, action: Outgoing) -> None:
        """Sets or withdraws a property. Raises RefusedError and LaterError."""
        ...

    async def call_webhook(self, action: Outgoing) -> None:
        """Calls a webhook. Raises RefusedError and LaterError."""
        ...

    async def has_consent(self, action: Outgoing, consent_property: str) -> bool:
        """Whether a property of the user does not say no: it is false, or the text no, false or denied.

        Raises LaterError when that cannot be known now.
        """
        ...


@dataclass(frozen=True, slots=True)
class ExecutorSettings:
    """How actions are done."""

    consent_property: str = "consent"
    """A property of the user; nothing is done for whom it says no. Empty: nobody is asked."""
    max_attempts: int = 12
    """Then an action is given up: with waits that double from `first_wait_us` to `longest_wait_us`, after hours."""
    first_wait_us: int = 1_000_000
    longest_wait_us: int = 3_600_000_000
    batch: int = 500
    concurrency: int = 16
    """So many users at once; one user's actions are done in their order."""
    poll_seconds: float = 1.0
    kept_us: int = 30 * 86_400_000_000
    """What was settled is kept so long."""
