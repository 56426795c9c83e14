"""Field masks of updates (AIP 134)."""

from collections.abc import Collection

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from services.runtime.errors import InvalidArgument, Violation


def apply(mask: FieldMask, source: Message, target: Message, allowed: Collection[str]) -> None:
    """Copies the masked fields of `source` over `target`: a field that is unset in `source` is cleared.

    `allowed` are the paths that callers may change (`description`, `key_fields`, `window.period`); naming one allows
    what is below it too. An empty mask means those of them that are set in `source`; `*` means all of them. Lists,
    maps and messages named by a path are replaced whole. Raises InvalidArgument, with a violation for each path
    that is not allowed, and changes nothing then.
    """
    for path in _paths(mask, source, allowed):
        _copy(path.split("."), source, target)


def _paths(mask: FieldMask, source: Message, allowed: Collection[str]) -> list[str]:
    if not mask.paths:
        return [path for path in allowed if _is_set(path.split("."), source)]
    if list(mask.paths) == ["*"]:
        return list(allowed)
    violations = [
        Violation(
            f"update_mask.paths[{index}]",
            f"{path} cannot be changed: use {', '.join(sorted(allowed)) or 'nothing'}",
            reason="BAD_MASK",
        )
        for index, path in enumerate(mask.paths)
        if not (_covered(path, allowed) and _exists(path.split("."), source))
    ]
    if violations:
        raise InvalidArgument(
            "update_mask names fields that cannot be changed", reason="BAD_MASK", violations=violations
        )
    return list(mask.paths)


def _covered(path: str, allowed: Collection[str]) -> bool:
    return any(path == whole or path.startswith(f"{whole}.") for whole in allowed)


def _exists(parts: list[str], message: Message) -> bool:
    descriptor = message.DESCRIPTOR
    for place, part in enumerate(parts):
        field = descriptor.fields_by_name.get(part)
        if field is None:
            return False
        if place < len(parts) - 1:
            if field.is_repeated or field.message_type is None:
                return False
            descriptor = field.message_type
    return True


def _is_set(parts: list[str], message: Message) -> bool:
    for part in parts[:-1]:
        if not message.HasField(part):
            return False
        message = getattr(message, part)
    return parts[-1] in _set_fields(message)


def _set_fields(message: Message) -> set[str]:
    return {field.name for field, _ in message.ListFields()}


def _copy(parts: list[str], source: Message, target: Message) -> None:
    *parents, name = parts
    for part in parents:
        if not source.HasField(part) and not target.HasField(part):
            return  # unset on both sides: nothing to clear, and nothing to make
        source, target = getattr(source, part), getattr(target, part)
    target.ClearField(name)
    if name not in _set_fields(source):
        return
    field = source.DESCRIPTOR.fields_by_name[name]
    value = getattr(source, name)
    if field.is_repeated:
        getattr(target, name).MergeFrom(value)
    elif field.message_type is not None:
        getattr(target, name).CopyFrom(value)
        getattr(target, name).SetInParent()  # an empty message is set too
    else:
        setattr(target, name, value)
