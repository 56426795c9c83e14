"""Field masks, over a message with scalars, lists, maps and messages."""

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from inkling.ingest.v1.collection_pb2 import Collection, Field
from services.runtime.errors import InvalidArgument
from services.runtime.fieldmasks import apply

ALLOWED = ("description", "event_type", "fields", "key_fields", "strictness")


def stored() -> Collection:
    collection = Collection(
        name="collections/a", description="old", key_fields={"user_id": "u"}, version=3, strictness=2
    )
    collection.event_type.vendor, collection.event_type.name = "com.acme", "order"
    collection.fields.add(name="u", type=1)
    return collection


def updated(source: Collection, *paths: str) -> Collection:
    target = stored()
    apply(FieldMask(paths=paths), source, target, ALLOWED)
    return target


def test_named_fields_are_copied_and_others_stay() -> None:
    target = updated(Collection(description="new", version=9, key_fields={"a": "b"}), "description")
    expected = stored()
    expected.description = "new"
    assert target == expected


def test_a_named_field_that_is_unset_is_cleared() -> None:
    target = updated(Collection(), "description", "key_fields", "event_type", "strictness")
    assert (target.description, dict(target.key_fields), target.HasField("event_type")) == ("", {}, False)
    assert target.strictness == 0
    assert target.fields == stored().fields


def test_lists_and_maps_are_replaced_whole() -> None:
    source = Collection(fields=[Field(name="x"), Field(name="y")], key_fields={"a": "b"})
    target = updated(source, "fields", "key_fields")
    assert [field.name for field in target.fields] == ["x", "y"]
    assert dict(target.key_fields) == {"a": "b"}


def test_a_path_may_go_into_a_message() -> None:
    source = Collection()
    source.event_type.name = "sale"
    target = updated(source, "event_type.name")
    assert (target.event_type.vendor, target.event_type.name) == ("com.acme", "sale")
    assert updated(Collection(), "event_type.name").event_type.name == ""


def test_an_empty_message_is_set_too() -> None:
    source = Collection()
    source.event_type.SetInParent()
    target = updated(source, "event_type")
    assert target.HasField("event_type")
    assert target.event_type.name == ""


def test_an_empty_mask_means_what_is_set_and_allowed() -> None:
    target = updated(Collection(description="new", version=9, name="other"))
    expected = stored()
    expected.description = "new"
    assert target == expected


def test_a_star_means_everything_that_is_allowed() -> None:
    target = updated(Collection(description="new", version=9), "*")
    assert target == Collection(name="collections/a", description="new", version=3)


@pytest.mark.parametrize(
    "path",
    ["version", "nothing", "description.x", "fields.name", "key_fields.a", "event_type.nothing", "descriptions", ""],
)
def test_a_path_that_cannot_be_changed_is_refused_and_nothing_is(path: str) -> None:
    target = stored()
    with pytest.raises(InvalidArgument) as caught:
        apply(FieldMask(paths=["description", path]), Collection(description="new"), target, ALLOWED)
    assert [violation.field for violation in caught.value.violations] == ["update_mask.paths[1]"]
    assert target == stored()


def test_allowing_a_path_within_a_message_allows_only_that() -> None:
    source, target = Collection(), stored()
    source.event_type.name = "sale"
    with pytest.raises(InvalidArgument):
        apply(FieldMask(paths=["event_type"]), source, target, ("event_type.name",))
    apply(FieldMask(), source, target, ("event_type.name", "event_type.version"))
    assert (target.event_type.vendor, target.event_type.name) == ("com.acme", "sale")
