"""What publishing would do: how a definition differs from what is served, and what its values would be.

Old and new values come from one temporary fold over the whole log, so they hold at the same position and instant.
"""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from enum import Enum

from services.features.compile import compile_attribute, compile_group
from services.features.definitions import Attribute, AttributeGroup
from services.features.values import Answer, answer
from services.following.feed import Feed, FeedUnavailableError, Part
from services.kernel.engine import Engine
from services.kernel.fold import Fold
from services.runtime.clocks import Clock
from services.runtime.errors import Unavailable

Answers = tuple[tuple[Attribute, Answer], ...]


class ChangeKind(Enum):
    """What happens to an attribute."""

    ADDED = 1
    CHANGED = 2
    UNCHANGED = 3
    REMOVED = 4


@dataclass(frozen=True, slots=True)
class Sample:
    """One profile, before and after; empty before when nothing is served."""

    key_value: str
    before: Answers
    after: Answers


def changes(before: AttributeGroup | None, after: AttributeGroup) -> list[tuple[str, ChangeKind]]:
    """What happens to each attribute: the new ones in order, then those removed."""
    served = {each.name: each for each in before.attributes} if before else {}
    result: list[tuple[str, ChangeKind]] = []
    for attribute in after.attributes:
        old = served.pop(attribute.name, None)
        if old is None:
            result.append((attribute.name, ChangeKind.ADDED))
        else:
            same = before is not None and before.attribute_key == after.attribute_key and _means(old, attribute)
            result.append((attribute.name, ChangeKind.UNCHANGED if same else ChangeKind.CHANGED))
    return result + [(name, ChangeKind.REMOVED) for name in served]


def _means(left: Attribute, right: Attribute) -> bool:
    """Whether two attributes always have the same value."""
    shown = (left.type, left.default_value) == (right.type, right.default_value)
    return shown and compile_attribute(left) == compile_attribute(right)


async def samples(
    feed: Feed,
    project: str,
    clock: Clock,
    before: AttributeGroup | None,
    after: AttributeGroup,
    key_values: Sequence[str],
    sample_size: int,
    max_bytes: int,
) -> list[Sample]:
    """The values of the named keys, and of `sample_size` others: those whose last event came in last.

    Raises Unavailable when the log cannot be read.
    """
    new = Engine(after.attribute_key, compile_group(after))
    old = Engine(before.attribute_key, compile_group(before)) if before else None
    fold = await _fold_log(feed, project, [new, old] if old else [new], max_bytes)
    fold.advance(clock.now_us())
    named = list(dict.fromkeys(key_values))
    known = set(named)
    others = [key for key in reversed(new.keys()) if key not in known][:sample_size]

    def read(group: AttributeGroup | None, engine: Engine | None, key: str) -> Answers:
        if group is None or engine is None or engine.attribute_key != new.attribute_key:
            return ()
        code = engine.key_codes.find(key)
        places = [engine.index_of(compile_attribute(attribute)) for attribute in group.attributes]
        return tuple(
            (attribute, answer(attribute, engine.reading(place, code)))
            for attribute, place in zip(group.attributes, places, strict=True)
            if place is not None
        )

    return [Sample(key, read(before, old, key), read(after, new, key)) for key in [*named, *others]]


async def _fold_log(feed: Feed, project: str, engines: Sequence[Engine], max_bytes: int) -> Fold:
    fold: Fold | None = None
    try:
        async with aclosing(feed.follow(project, 0, max_bytes, stop_at_head=True)) as parts:
            async for part in parts:
                if fold is None:
                    assert part.settings is not None, "the first part of a stream carries the settings"
                    fold = Fold(part.settings.clock, part.settings.horizon_us)
                    for engine in engines:
                        engine.complete_since_us = part.complete_since_us
                        fold.attach(engine)
                if part.last_position:
                    await asyncio.to_thread(_apply, fold, part)
    except FeedUnavailableError as error:
        raise Unavailable("the log cannot be read now", reason="NOT_READY") from error
    return fold or Fold()


def _apply(fold: Fold, part: Part) -> None:
    fold.apply(part.first_position, part.last_position, part.batch())
