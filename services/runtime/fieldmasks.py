"""Field masks of updates (AIP 134)."""

from collections.abc import Collection

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message


def apply(mask: FieldMask, source: Message, target: Message, allowed: Collection[str]) -> None:
    """Copies the masked fields of `source` over `target`.

    `allowed` are the paths that callers may change (`description`, `key_fields`, `window.period`). An empty mask
    means those of them that are set in `source`; `*` means all of them. Raises InvalidArgument for other paths.
    """
    raise NotImplementedError
