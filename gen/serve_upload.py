"""A form with a file, taken in piece by piece: the file goes to its place on disk, no matter what its sender calls it.

Nothing is buffered beyond a piece; sizes are counted as they come, not as headers state them.
"""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from .serve_limits import Limits

#: Most fields of a form.
_FIELDS = 32


class BadUpload(ValueError):
    """A body that is not taken; ``status`` as HTTP counts."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Form:
    """Text fields of a form, and what its sender calls the file (None: there was none)."""

    fields: dict[str, str] = field(default_factory=dict)
    name: str | None = None
    size: int = 0


@dataclass
class _Part:
    headers: dict[str, str] = field(default_factory=dict)
    header: bytearray = field(default_factory=bytearray)
    value: bytearray = field(default_factory=bytearray)
    data: bytearray = field(default_factory=bytearray)
    name: str = ""
    file: bool = False


class _Reader:
    """Takes a form apart as it comes in."""

    def __init__(self, boundary: bytes, out: BinaryIO, limits: Limits) -> None:
        from python_multipart.multipart import MultipartParser

        self.form, self.complete = Form(), False
        self._out, self._limits, self._part, self._text = out, limits, _Part(), 0
        self.parser = MultipartParser(boundary, {
            "on_part_begin": self._begin, "on_header_field": self._field, "on_header_value": self._value,
            "on_header_end": self._header, "on_headers_finished": self._headers, "on_part_data": self._data,
            "on_part_end": self._done, "on_end": self._end,
        })  # fmt: skip

    def _begin(self) -> None:
        self._part = _Part()

    def _field(self, data: bytes, start: int, end: int) -> None:
        self._part.header += data[start:end]

    def _value(self, data: bytes, start: int, end: int) -> None:
        self._part.value += data[start:end]

    def _header(self) -> None:
        self._part.headers[self._part.header.decode("latin-1").lower()] = self._part.value.decode("utf-8", "replace")
        self._part.header, self._part.value = bytearray(), bytearray()

    def _headers(self) -> None:
        from python_multipart.multipart import parse_options_header

        _, options = parse_options_header(self._part.headers.get("content-disposition", ""))
        self._part.name = options.get(b"name", b"").decode("utf-8", "replace")
        self._part.file = b"filename" in options or self._part.name == "file"
        if not self._part.file:
            if len(self.form.fields) >= _FIELDS:
                raise BadUpload(400, f"the form has more than {_FIELDS} fields")
            return
        if self.form.name is not None:
            raise BadUpload(400, "the form holds more than one file: send one")
        if self._part.name != "file":
            raise BadUpload(400, f"the file must come in the field 'file', not {self._part.name[:40]!r}")
        self.form.name = shown(options.get(b"filename", b"").decode("utf-8", "replace"))

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._part.file:
            self.form.size += end - start
            if self.form.size > self._limits.upload:
                raise too_large(self._limits)
            self._out.write(data[start:end])
            return
        self._text += end - start
        if self._text > self._limits.body:
            raise BadUpload(413, f"the form holds more than {self._limits.body} bytes of text")
        self._part.data += data[start:end]

    def _done(self) -> None:
        if not self._part.file:
            if self._part.name in self.form.fields:
                raise BadUpload(400, f"the field {self._part.name[:40]!r} comes twice")
            self.form.fields[self._part.name] = self._part.data.decode("utf-8", "replace")

    def _end(self) -> None:
        self.complete = True


def too_large(limits: Limits) -> BadUpload:
    """What a sender of too much is told."""
    return BadUpload(413, f"the file is larger than {limits.upload / 1e6:g} MB, the most this server takes")


def shown(name: str) -> str:
    """A sender's file name for people to read: its last part, printable, short."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    clean = "".join(" " if unicodedata.category(sign).startswith("C") else sign for sign in last).strip()
    return clean[-80:] or "the file"


async def receive(kind: str, stream: AsyncIterator[bytes], target: Path, limits: Limits) -> Form:
    """Read a multipart body of content type ``kind``; its file, in the field ``file``, becomes ``target``.

    Raises BadUpload for what is no form, is cut off, is too large, or does not come.
    """
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import parse_options_header

    content, options = parse_options_header(kind)
    boundary = options.get(b"boundary")
    if content != b"multipart/form-data" or not boundary:
        raise BadUpload(415, "send a form with a file: multipart/form-data, such as curl -F file=@song.wav makes")
    with target.open("xb") as out:
        try:
            reader = _Reader(boundary, out, limits)
            async for piece in patient(stream, limits.patience):
                reader.parser.write(piece)
        except FormParserError:
            raise BadUpload(400, "the form is damaged: send it again") from None
    if not reader.complete:
        raise BadUpload(400, "the form is cut off: send it again")
    return reader.form


async def patient(stream: AsyncIterator[bytes], seconds: float) -> AsyncIterator[bytes]:
    """The pieces of a body, unless none comes for so long. Raises BadUpload."""
    pieces = stream.__aiter__()
    while True:
        try:
            yield await asyncio.wait_for(pieces.__anext__(), seconds)
        except StopAsyncIteration:
            return
        except asyncio.TimeoutError:
            raise BadUpload(408, f"nothing came for {seconds:g} s: send it again") from None
