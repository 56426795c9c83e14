"""How Snowplow's text cells become typed columns: once per distinct text, then taken by code."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

INTEGERS = (
    *("domain_sessionidx", "txn_id", "ti_quantity", "pp_xoffset_min", "pp_xoffset_max", "pp_yoffset_min"),
    *("pp_yoffset_max", "br_viewwidth", "br_viewheight", "dvce_screenwidth", "dvce_screenheight", "doc_width"),
    "doc_height",
)
NUMBERS = (
    *("se_value", "tr_total", "tr_tax", "tr_shipping", "ti_price", "tr_total_base", "tr_tax_base", "tr_shipping_base"),
    *("ti_price_base", "geo_latitude", "geo_longitude"),
)
BOOLEANS = (
    *("br_cookies", "br_features_pdf", "br_features_flash", "br_features_java", "br_features_director"),
    *("br_features_quicktime", "br_features_realplayer", "br_features_windowsmedia", "br_features_gears"),
    *("br_features_silverlight", "dvce_ismobile"),
)
KINDS: Mapping[str, str] = {
    **dict.fromkeys(INTEGERS, "i"),
    **dict.fromkeys(NUMBERS, "d"),
    **dict.fromkeys(BOOLEANS, "b"),
}
"""The kinds of Snowplow's atomic columns that are not text."""

INTEGER_TEXT = r"^[+-]?[0-9]{1,18}(\.0+)?$"
NUMBER_TEXT = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?$"
TIME_TEXT = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([ T][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?)?$"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_cells(cells: pa.Array, kind: str) -> pa.Array:
    """A dictionary of texts as a column of a kind; texts that are no such value are null."""
    match kind:
        case "s":
            return cells
        case "i":
            whole = pc.replace_substring_regex(matching(cells.dictionary, INTEGER_TEXT), r"(\.0+)$|^\+", "")
            parsed = whole.cast(pa.int64())
        case "d":
            numbers = matching(cells.dictionary, NUMBER_TEXT).cast(pa.float64())
            parsed = pc.if_else(pc.is_finite(numbers), numbers, None)
        case _:
            lower = pc.utf8_lower(cells.dictionary)
            known = pc.is_in(lower, pa.array(["true", "false", "1", "0", "t", "f"]))
            parsed = pc.if_else(known, pc.is_in(lower, pa.array(["true", "1", "t"])), None)
    return parsed.take(cells.indices)


def matching(texts: pa.Array, pattern: str) -> pa.Array:
    """The texts that match, null in place of the others."""
    return pc.if_else(pc.match_substring_regex(texts, pattern), texts, None)


def parse_times(cells: pa.Array) -> pa.Array:
    """A dictionary of texts as int64 microseconds; null where there is no time, or none that can be read.

    `2025-04-23 00:21:24.939` with a space or a T, in UTC unless it names a zone.
    """
    texts = pc.replace_substring_regex(cells.dictionary, r" ?(Z|UTC|[+]00:?(00)?)$", "")
    plain = pc.match_substring_regex(texts, TIME_TEXT)
    try:
        parsed = pc.if_else(plain, texts, None).cast(pa.timestamp("us")).cast(pa.int64())
    except pa.ArrowInvalid:
        # A day such as 30 February fails the whole column: find it one by one.
        parsed = pa.nulls(len(texts), pa.int64())
    if parsed.null_count:
        slow = pa.array([parse_time(text.as_py()) for text in texts.filter(parsed.is_null())], pa.int64())
        parsed = pc.replace_with_mask(parsed, parsed.is_null(), slow)
    return parsed.take(cells.indices)


def parse_time(text: str | None) -> int | None:
    """Microseconds of one ISO-8601 time, UTC unless it names a zone; None when it is not one."""
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - EPOCH) // timedelta(microseconds=1)
