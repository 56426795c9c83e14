"""Page sizes and tokens."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.errors import InvalidArgument
from services.runtime.paging import PageTokens, page_size

CURSORS = st.dictionaries(
    st.text(max_size=5), st.none() | st.booleans() | st.integers() | st.text(max_size=20), max_size=4
)
SCOPES = st.lists(st.text(max_size=10), max_size=3)


def test_sizes_follow_the_rules_of_aip_158() -> None:
    assert [page_size(n, default=50, maximum=100) for n in (0, 1, 100, 101, 2**31 - 1)] == [50, 1, 100, 100, 100]
    with pytest.raises(InvalidArgument):
        page_size(-1)


@given(CURSORS, SCOPES)
def test_a_token_leads_back_to_its_cursor(cursor: dict[str, str | int | None], scope: list[str]) -> None:
    tokens = PageTokens(b"secret")
    assert tokens.verify(tokens.sign(cursor, *scope), *scope) == cursor


@given(CURSORS, SCOPES, SCOPES)
def test_a_token_of_another_scope_or_secret_is_refused(
    cursor: dict[str, str | int | None], scope: list[str], other: list[str]
) -> None:
    token = PageTokens(b"secret").sign(cursor, *scope)
    if scope != other:
        with pytest.raises(InvalidArgument):
            PageTokens(b"secret").verify(token, *other)
    with pytest.raises(InvalidArgument):
        PageTokens(b"other").verify(token, *scope)


@given(CURSORS, st.data())
def test_a_token_with_one_changed_character_is_refused(
    cursor: dict[str, str | int | None], data: st.DataObject
) -> None:
    tokens = PageTokens(b"secret")
    token = tokens.sign(cursor, "shop")
    place = data.draw(st.integers(0, len(token) - 2))  # the last character has bits that mean nothing
    changed = data.draw(st.sampled_from("ABCDefgh0123-_").filter(lambda character: character != token[place]))
    with pytest.raises(InvalidArgument):
        tokens.verify(token[:place] + changed + token[place + 1 :], "shop")


@given(st.text(min_size=1))
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        PageTokens(b"secret").verify(text, "shop")


def test_the_empty_token_is_the_first_page() -> None:
    assert PageTokens(b"secret").verify("", "shop") == {}


def test_a_secret_is_kept_in_the_data_folder_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    token = PageTokens.open("", tmp_path / "data").sign({"a": 1})
    assert PageTokens.open("", tmp_path / "data").verify(token) == {"a": 1}
    [file] = (tmp_path / "data").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(InvalidArgument):
        PageTokens.open("given", tmp_path / "data").verify(token)
