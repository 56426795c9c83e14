"""Statuses fit into what clients take in trailers, whatever the error."""

from datetime import timedelta
from urllib.parse import quote

from google.rpc import code_pb2, error_details_pb2
from hypothesis import given
from hypothesis import strategies as st

from services.runtime import errors
from services.runtime.errors import Code, InklingError, Violation
from services.runtime.statuses import grpc_code, status_of

TEXT = st.text(max_size=30) | st.sampled_from(["é" * 2000, "𝄞" * 2000, "x" * 5000, "\ud800" * 500])
CLASSES = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, InklingError)]


@given(
    st.builds(
        lambda kind, message, **more: kind(message, **more),
        st.sampled_from(CLASSES),
        TEXT,
        reason=TEXT,
        violations=st.lists(st.builds(Violation, TEXT, TEXT, TEXT), max_size=40),
        metadata=st.dictionaries(TEXT, TEXT, max_size=40),
        retry_after=st.none() | st.timedeltas(timedelta(0), timedelta(days=1)),
    )
)
def test_any_error_fits_into_8_kib_of_trailers(error: InklingError) -> None:
    status = status_of(error, "echo.inkling", "request-1")
    encoded = len(status.SerializeToString()) * 4 / 3 + len(quote(status.message))
    assert encoded < 7_500
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == "echo.inkling"
    assert status.code == grpc_code(error.code).value[0]


def test_every_code_has_the_number_of_its_name() -> None:
    for code in Code:
        assert grpc_code(code).value[0] == code_pb2.Code.Value(code.value)


def test_every_error_has_a_code_of_its_own() -> None:
    codes = [kind.code for kind in CLASSES]
    assert len(set(codes)) == len(codes)
