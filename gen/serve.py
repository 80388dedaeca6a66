"""``descant serve``: a page in the browser and an API over HTTP, on one's own machine."""

from __future__ import annotations

import contextlib
import errno
import signal
import socket
import tempfile
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NamedTuple

from .serve_limits import Limits

if TYPE_CHECKING:
    import uvicorn

    from .serve_jobs import Store
    from .serve_work import Tools

#: What the extra ``web`` brings.
NEEDED = ("starlette", "uvicorn", "python_multipart")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where to listen, and by which further names the server may be called."""

    host: str = "127.0.0.1"
    port: int = 8765
    names: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port {self.port} is outside 0 to 65535")


class Opened(NamedTuple):
    """A server, the socket it is to be run on, and its jobs."""

    server: uvicorn.Server
    door: socket.socket
    store: Store


class _Stop(BaseException):
    """SIGTERM came: unwind, so that nothing is left behind."""


def missing() -> str | None:
    """What the extra ``web`` lacks here, as one line; None when it is complete."""
    from importlib.util import find_spec

    lost = [name for name in NEEDED if find_spec(name) is None]
    return f"needs {', '.join(lost)}: pip install 'descant[web]'" if lost else None


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens, loopback or not. Raises OSError in one line."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):
        raise OSError(f"no such address: {host}") from None
    door = socket.socket(family, kind, proto)
    try:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind(address)
    except OSError as error:
        door.close()
        if error.errno == errno.EADDRINUSE:
            raise OSError(f"port {port} is in use: choose another with --port") from None
        if error.errno == errno.EACCES:
            raise OSError(f"port {port} is not for everyone: choose one above 1023 with --port") from None
        raise OSError(f"cannot listen on {host}:{port}: {error.strerror}") from None
    return door


def address_of(door: socket.socket) -> str:
    """What to type into a browser."""
    host, port = door.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextlib.contextmanager
def opened(place: Place, tools: Sequence[Tools]) -> Iterator[Opened]:
    """A server that takes connections, and answers them once it is run on its socket; all files go at the end.

    One worker for each of ``tools``. Raises OSError for an address that is not to be had.
    """
    import uvicorn

    from .serve_app import build
    from .serve_jobs import Store

    class Server(uvicorn.Server):
        """Ends streams of progress as soon as it is told to stop, instead of waiting for them."""

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            store.closing = True
            super().handle_exit(sig, frame)

    with contextlib.ExitStack() as stack:
        door = stack.enter_context(contextlib.closing(listen(place.host, place.port)))
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="descant-serve-"))
        store = Store(Path(folder), place.limits, tools)
        app = build(store, tools[0], (place.host, socket.gethostname(), *place.names))
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=3,
            limit_concurrency=1024, server_header=False, proxy_headers=False,
        )  # fmt: skip
        stack.callback(store.close)
        store.start()
        door.listen(512)
        yield Opened(Server(config), door, store)


def serve(
    place: Place, tools: Sequence[Tools], ready: Callable[[str], None] | None = None, browser: bool = False
) -> None:  # fmt: skip
    """Serve, in the main thread, until SIGTERM, or SIGINT, which is raised once all is put away (KeyboardInterrupt).

    ready: told the address once it can be asked. browser: open the page.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise _Stop

    before = signal.signal(signal.SIGTERM, stop)
    try:
        with opened(place, tools) as (server, door, _):
            address = address_of(door)
            if ready is not None:
                ready(address)
            if browser:
                webbrowser.open(address)
            server.run(sockets=[door])
    except _Stop:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)
