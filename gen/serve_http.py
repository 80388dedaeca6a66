"""Between a server's routes and the wire: who may ask, JSON answers, streams of events and ZIP files."""

from __future__ import annotations

import asyncio
import contextlib
import io
import ipaddress
import json
import zipfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Nothing is loaded from elsewhere, nothing of ours is shown elsewhere.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self' blob:; "
    "connect-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY, "x-content-type-options": "nosniff", "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin", "cross-origin-opener-policy": "same-origin",
    "x-frame-options": "DENY",
}  # fmt: skip
_STEP = 1 << 18
#: Bytes and seconds for which a refused sender is listened to, so that it comes to hear the answer.
_DRAIN, _DRAINING = 64_000_000, 3.0
_BEAT = 15.0  # s after which an idle stream says that it is alive


class Guard:
    """Lets through what was asked of this server by name, and by its own pages or no page at all.

    A page elsewhere can make a browser send requests here, and can give its own name our address; the former states
    its origin, and the latter states that name as the host.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str]) -> None:
        self.app, self.hosts = app, {host.lower().strip("[]") for host in hosts} | {"localhost"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        fault = self._fault(headers, scope["method"])
        more = "content-length" in headers or "transfer-encoding" in headers

        async def heard() -> Message:
            nonlocal more
            message = await receive()
            more = bool(message.get("more_body", False))
            return message

        async def drain() -> None:
            left = _DRAIN
            while more and left > 0:
                left -= len((await heard()).get("body", b""))

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                if message["status"] >= 400 and message["status"] != 408 and more:
                    with contextlib.suppress(asyncio.TimeoutError):
                        await asyncio.wait_for(drain(), _DRAINING)
                own = {name.lower() for name, _ in message.get("headers", [])}
                extra = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
                message["headers"] = [*message.get("headers", []), *(pair for pair in extra if pair[0] not in own)]
            await send(message)

        app = self.app if fault is None else answer({"error": fault[1]}, fault[0])
        await app(scope, heard, guarded)

    def _fault(self, headers: Mapping[str, str], method: str) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if not self.known(host):
            return 421, f"this server is not called {host[:80]!r}: use its address, or start it with --allow-host"
        if method in ("GET", "HEAD"):
            return None
        origin = headers.get("origin")
        if origin is not None and origin.split("://", 1)[-1].lower() != host.lower():
            return 403, "other sites may not use this server"
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return 403, "other sites may not use this server"
        return None

    def known(self, host: str) -> bool:
        """Whether a Host header names this server; an address cannot be another one's name."""
        name = host.lower()
        if name.startswith("["):
            name = name[1:].partition("]")[0]
        elif name.count(":") == 1:
            name = name.partition(":")[0]
        if name in self.hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def answer(data: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """JSON in plain ASCII, not to be kept by caches."""
    from starlette.responses import Response

    body = json.dumps(data, allow_nan=False).encode()
    return Response(body, status, {"cache-control": "no-store", **(headers or {})}, "application/json")


async def events(look: Callable[[], tuple[int, Mapping[str, Any], bool]], wait: float = 0.15) -> AsyncIterator[bytes]:
    """Server-sent events (WHATWG HTML, 9.2): a ``state`` for every change that ``look`` sees, until it says the last.

    look: returns a version, data, and whether nothing will follow.
    """
    seen, quiet = -1, 0.0
    while True:
        version, data, last = look()
        if version != seen or last:
            seen, quiet = version, 0.0
            yield f"event: state\ndata: {json.dumps(data, allow_nan=False)}\n\n".encode()
        if last:
            return
        await asyncio.sleep(wait)
        quiet += wait
        if quiet >= _BEAT:
            quiet = 0.0
            yield b": still here\n\n"


class _Pipe(io.RawIOBase):
    """What a ZIP is written to: it holds what was written until it is taken."""

    def __init__(self) -> None:
        super().__init__()
        self._held: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._held.append(bytes(data))
        return len(data)

    def taken(self) -> bytes:
        held, self._held = b"".join(self._held), []
        return held


def zipped(files: Mapping[str, Path]) -> Iterator[bytes]:
    """A ZIP of files by their names in it, piece by piece, stored as they are: sound hardly shrinks."""
    pipe = _Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED) as archive:
        for name, path in files.items():
            with archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as out, path.open("rb") as source:
                while piece := source.read(_STEP):
                    out.write(piece)
                    yield pipe.taken()
    yield pipe.taken()
