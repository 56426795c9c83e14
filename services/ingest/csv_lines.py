"""CSV files in pieces: decompressed, cut into records, with bounded memory."""

import csv
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

MAX_RECORD = 1024 * 1024
"""The longest record, in bytes. A quote that is never closed is given up after so many."""
_STEP = 1024 * 1024
_GZIP = b"\x1f\x8b"
_GZIP_FORMAT = 31


class FileError(Exception):
    """The file cannot be read on; the text says why, for people."""


@dataclass(frozen=True)
class Record:
    """One record of the file."""

    line: int
    """The number of its first line; the first line of the file is 1."""
    raw: bytes
    fields: list[str] | None
    """None: the record cannot be read; `problem` says why."""
    problem: str = ""


class Inflater:
    """Decompresses gzip (recognised by its first bytes, several members too); passes anything else on."""

    def __init__(self) -> None:
        self._head = b""
        self._known = False
        self._stream: zlib._Decompress | None = None
        self._inside = False
        """Within a gzip member."""

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The content that a chunk holds, in steps of at most 1 MiB. Raises FileError."""
        if not self._known:
            self._head += chunk
            if len(self._head) < len(_GZIP):
                return
            self._known, chunk, self._head = True, self._head, b""
            if chunk.startswith(_GZIP):
                self._stream = zlib.decompressobj(_GZIP_FORMAT)
        if self._stream is None:
            yield chunk
            return
        while chunk:
            self._inside = True
            try:
                content = self._stream.decompress(chunk, _STEP)
            except zlib.error:
                raise FileError("the gzip stream is damaged") from None
            if content:
                yield content
            if self._stream.eof:
                self._inside = False
                chunk = self._stream.unused_data.lstrip(b"\0")
                self._stream = zlib.decompressobj(_GZIP_FORMAT)
            else:
                chunk = self._stream.unconsumed_tail

    def end(self) -> bytes:
        """What is left at the end of the file. Raises FileError when the stream was cut off."""
        if self._inside:
            raise FileError("the gzip stream ends too early")
        return self._head


class _StarvedError(Exception):
    """There are no more lines for now."""


class _EndlessError(Exception):
    """A record is longer than allowed."""


class RecordReader:
    """Cuts content into records. Quoted fields may span lines; a line that cannot be read is a record without fields.

    `delimiter` is one character.
    """

    def __init__(self, delimiter: str) -> None:
        self._delimiter = delimiter
        self._lines: deque[bytes] = deque()
        self._rest = b""
        self._taken: list[bytes] = []
        self._taken_bytes = 0
        self._line = 1
        self._ended = False

    def feed(self, content: bytes) -> Iterator[Record]:
        """The records that are complete with this content."""
        lines = (self._rest + content).split(b"\n")
        self._rest = lines.pop()
        self._lines.extend(line + b"\n" for line in lines)
        if len(self._rest) > MAX_RECORD:
            raise FileError(f"line {self._line + len(self._lines)} is longer than 1 MiB")
        return self._records()

    def end(self) -> Iterator[Record]:
        """The records at the end of the file."""
        if self._rest:
            self._lines.append(self._rest)
            self._rest = b""
        self._ended = True
        return self._records()

    def _records(self) -> Iterator[Record]:
        reader = self._reader()
        while self._lines:
            self._taken, self._taken_bytes = [], 0
            fields: list[str] | None
            try:
                fields = next(reader)
                problem = ""
            except _StarvedError:
                # The record goes on in content to come: its lines wait.
                self._lines.extendleft(reversed(self._taken))
                return
            except _EndlessError:
                fields, problem = None, "A quoted field is longer than 1 MiB: is its closing quote missing?"
            except UnicodeDecodeError:
                fields, problem = None, "The line is not UTF-8."
            except csv.Error:
                fields, problem = None, "The line is not CSV: look at its quotes."
            except StopIteration:
                return
            if problem:
                # Only the first line is given up: what follows may be sound.
                self._lines.extendleft(reversed(self._taken[1:]))
                del self._taken[1:]
                reader = self._reader()
            raw = b"".join(self._taken)
            line = self._line
            self._line += len(self._taken)
            if fields or problem:
                yield Record(line, raw.rstrip(b"\r\n"), fields, problem)

    def _reader(self) -> "Iterator[list[str]]":
        return csv.reader(self._source(), delimiter=self._delimiter, strict=True)

    def _source(self) -> Iterator[str]:
        while True:
            if not self._lines:
                if self._ended:
                    return
                raise _StarvedError
            line = self._lines.popleft()
            self._taken.append(line)
            self._taken_bytes += len(line)
            if self._taken_bytes > MAX_RECORD and len(self._taken) > 1:
                raise _EndlessError
            yield line.decode()
