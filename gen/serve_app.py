"""The routes of ``descant serve``: the page, its API, and the files that jobs leave."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..lm import vocab
from . import serve_work as work
from .request import Request, RequestError
from .serve_http import Guard, answer, events, zipped
from .serve_jobs import Job, Outcome, Refused, Store, Work
from .serve_upload import BadUpload, Form, patient, receive
from .serve_wishes import json_of, request_of

if TYPE_CHECKING:
    from starlette.requests import Request as Asked
    from starlette.responses import Response
    from starlette.types import ASGIApp

#: The page and what belongs to it.
WEB = Path(__file__).resolve().parent / "web"
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
#: Name of a file of the page -> where it lies.
PAGES = {name: WEB / name for name in ("index.html", "serve.css", "serve.js", "draw.js", "record.js", "icon.svg")}


class Site:
    """The handlers. ``tools`` are the worker's that a request is checked against; all workers are alike."""

    def __init__(self, store: Store, tools: work.Tools) -> None:
        self.store, self.limits, self.tools = store, store.limits, tools
        self.able = work.abilities(tools.studio)
        self.methods = work.methods(tools.separator)
        self.listening = 0

    # -- what there is

    async def page(self, asked: Asked) -> Response:
        """The page, or one of its files, by a name from a fixed list."""
        from starlette.responses import FileResponse

        path = PAGES.get(asked.path_params.get("name", "index.html"))
        if path is None:
            return answer({"error": "there is no such page"}, 404)
        return FileResponse(path, headers={"cache-control": "no-cache"}, media_type=_TYPES[path.suffix])

    async def about(self, asked: Asked) -> Response:
        """What this server can do."""
        from .. import __version__

        studio, limits = self.tools.studio, self.limits
        return answer({
            "version": __version__, **self.able,
            "model": {"name": Path(studio.name).name, "rate": studio.codec.rate, "channels": work.channels(studio)},
            "separators": [Path(name).name if name == self.tools.separator else name for name in self.methods],
            "genres": list(vocab.GENRES), "instruments": list(vocab.INSTRUMENTS), "keys": list(vocab.KEYS),
            "limits": asdict(limits), "jobs": self.store.counts(),
        })  # fmt: skip

    # -- jobs come in

    async def generate(self, asked: Asked) -> Response:
        """New music: JSON, or a form with a melody in ``file`` where the model hears one."""
        kind = asked.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "application/json":
            given = json_of(await self._body(asked))
            request = self._request(given, new=True)
            job = self.store.open("generate")
            self.store.submit(job, work.generating(request, self.limits))
            return self._accepted(asked, job)
        if kind != "multipart/form-data":
            raise BadUpload(415, "send JSON (content-type: application/json), or a form with a melody")
        if not self.able["melody"]:
            raise RequestError(f"{Path(self.tools.studio.name).name} takes no melody: send JSON")

        def make(form: Form) -> Work:
            return work.generating(self._request(form.fields, new=True), self.limits, melody=True)

        return await self._sent(asked, "generate", make)

    async def extend(self, asked: Asked) -> Response:
        """A form with a file, and what should follow."""

        def make(form: Form) -> Work:
            return work.extending(self._request(form.fields, new=False), self.limits)

        return await self._sent(asked, "extend", make)

    async def separate(self, asked: Asked) -> Response:
        """A form with a file; fields ``separator``, ``stems`` and ``residual``."""

        def make(form: Form) -> Work:
            fields = dict(form.fields)
            method = self._method(fields)
            stems, residual = fields.pop("stems", "") or None, fields.pop("residual", "")
            if residual not in ("", "true", "false", "on"):
                raise RequestError(f"residual {residual[:40]!r} is not true or false")
            _nothing_else(fields, ("separator", "stems", "residual"))
            return work.separating(method, stems, residual in ("true", "on"), self.limits)

        return await self._sent(asked, "separate", make)

    async def accompany(self, asked: Asked) -> Response:
        """A form with a file, ``parts`` to add, and wishes for them."""
        from .accompany import check

        check(self.tools.studio, self.able["parts"][:1] or ["bass"])  # says what is missing before a file is sent

        def make(form: Form) -> Work:
            fields = dict(form.fields)
            method = self._method(fields)
            parts = [part.strip() for part in fields.pop("parts", "").split(",") if part.strip()]
            check(self.tools.studio, parts)
            request = request_of(fields, self.limits, new=False)
            return work.accompanying(request, parts, method, self.limits)

        return await self._sent(asked, "accompany", make)

    def _request(self, given: Mapping[str, Any], new: bool) -> Request:
        return work.check(self.tools.studio, request_of(given, self.limits, new))

    def _method(self, fields: dict[str, str]) -> str | None:
        """The separator that was asked for: one of a fixed list, never a place on this machine."""
        named = fields.pop("separator", "")
        if not named or named == Path(self.tools.separator).name:
            return None
        if named not in self.methods:
            raise RequestError(f"no separator {named[:40]!r}: there are {', '.join(self.methods[1:])}")
        return named

    async def _body(self, asked: Asked) -> bytes:
        body = bytearray()
        async for piece in patient(asked.stream(), self.limits.patience):
            body += piece
            if len(body) > self.limits.body:
                raise BadUpload(413, f"the body is larger than {self.limits.body} bytes")
        return bytes(body)

    async def _sent(self, asked: Asked, kind: str, make: Callable[[Form], Work]) -> Response:
        """Take a slot, the file, and put the job into the queue; whatever goes wrong gives the slot back."""
        job = self.store.open(kind)
        try:
            form = await receive(asked.headers.get("content-type", ""), asked.stream(), job.input, self.limits)
            if form.name is None:
                raise BadUpload(400, "the form holds no file: add one in the field 'file'")
            if not form.size:
                raise BadUpload(400, f"{form.name}: is empty (0 bytes); export or download it again")
            job.shown = form.name
            self.store.submit(job, make(form))
        except BaseException:
            self.store.drop(job)
            raise
        return self._accepted(asked, job)

    def _accepted(self, asked: Asked, job: Job) -> Response:
        return answer(self.state(job), 202, {"location": f"/api/jobs/{job.id}"})

    # -- jobs are looked at

    def state(self, job: Job) -> dict[str, Any]:
        """A job as plain data."""
        told: dict[str, Any] = {"id": job.id, "kind": job.kind, "status": job.status, "url": f"/api/jobs/{job.id}"}
        if job.shown:
            told["input"] = job.shown
        if job.status == "queued":
            told["before"] = self.store.place(job)
        if job.status == "running":
            told["progress"] = round(min(1.0, job.done / job.total), 4) if job.total else 0.0
        if job.error is not None:
            told["error"] = job.error
        if job.finished and job.started:
            told["took"] = round(job.ended - job.started, 3)
        if job.status == "done" and job.outcome is not None:
            told["result"] = {**job.outcome.facts, "sounds": self._sounds(job, job.outcome)}
            told["result"]["zip"] = f"/api/jobs/{job.id}/sounds.zip"
        return told

    def _sounds(self, job: Job, made: Outcome) -> list[dict[str, Any]]:
        where = f"/api/jobs/{job.id}/sounds"
        return [{"name": name, "url": f"{where}/{made.files[name].name}", **made.sounds[name]} for name in made.files]

    def _job(self, asked: Asked) -> Job:
        job = self.store.get(asked.path_params["id"])
        if job is None:
            raise BadUpload(404, "there is no such job, or its time is over")
        return job

    async def job(self, asked: Asked) -> Response:
        """Where a job stands."""
        return answer(self.state(self._job(asked)))

    async def cancel(self, asked: Asked) -> Response:
        """Call a job off; one that is finished is removed with its files."""
        job = self._job(asked)
        finished = job.finished
        self.store.cancel(job)
        return answer({"id": job.id, "status": "removed" if finished else "cancelled"})

    async def events(self, asked: Asked) -> Response:
        """A job's states as server-sent events."""
        from starlette.responses import StreamingResponse

        job = self._job(asked)
        if self.listening >= self.limits.listeners:
            raise Refused(503, "too many listen to progress already: ask for the job's state instead", 5)

        def look() -> tuple[int, Mapping[str, Any], bool]:
            version = job.version
            return version, self.state(job), job.finished or self.store.closing

        async def stream() -> Any:
            self.listening += 1
            try:
                async for event in events(look):
                    yield event
            finally:
                self.listening -= 1

        return StreamingResponse(stream(), headers={"cache-control": "no-store"}, media_type="text/event-stream")

    async def sound(self, asked: Asked) -> Response:
        """One sound file of a job, looked up among those it made."""
        from starlette.responses import FileResponse

        job, wanted = self._job(asked), asked.path_params["name"]
        files = {path.name: path for path in job.outcome.files.values()} if job.outcome is not None else {}
        path = files.get(wanted)
        if path is None or not path.is_file():
            raise BadUpload(404, "there is no such sound, or its time is over")
        kind = "attachment" if "download" in asked.query_params else "inline"
        return FileResponse(
            path, headers={"cache-control": "no-store"}, media_type="audio/wav",
            filename=f"descant-{self._called(job)}-{path.name}", content_disposition_type=kind,
        )  # fmt: skip

    async def archive(self, asked: Asked) -> Response:
        """All sound files of a job as a ZIP."""
        from starlette.responses import StreamingResponse

        job = self._job(asked)
        if job.status != "done" or job.outcome is None:
            raise BadUpload(404, "this job has no sounds")
        name = f"descant-{self._called(job)}"
        files = {f"{name}/{path.name}": path for path in job.outcome.files.values()}
        headers = {"content-disposition": f'attachment; filename="{name}.zip"', "cache-control": "no-store"}
        return StreamingResponse(zipped(files), headers=headers, media_type="application/zip")

    def _called(self, job: Job) -> str:
        """A short name for downloads: the verb and the seed, or the beginning of the job's id."""
        seed = job.outcome.facts.get("seed") if job.outcome is not None else None
        return f"{job.kind}-{job.id[:6] if seed is None else seed}"


def _nothing_else(fields: Mapping[str, str], known: Iterable[str]) -> None:
    for name in fields:
        raise RequestError(f"unknown field {name[:40]!r}: there are {', '.join(known)}")


async def _told(asked: Asked, error: Exception) -> Response:
    """What went wrong, in one line of JSON."""
    from starlette.exceptions import HTTPException

    line = " ".join(str(error).split())
    if isinstance(error, Refused):
        return answer({"error": line, "retry_after": error.after}, error.status, {"retry-after": str(error.after)})
    if isinstance(error, HTTPException):
        return answer(
            {"error": f"{asked.method} {asked.url.path[:80]}: {error.detail}"}, error.status_code, error.headers
        )
    if isinstance(error, (BadUpload, RequestError)):
        return answer({"error": line}, getattr(error, "status", 400))
    return answer({"error": f"internal error, {type(error).__name__}: the server's log says more"}, 500)


def build(store: Store, tools: work.Tools, hosts: Iterable[str] = ()) -> ASGIApp:
    """The whole application; ``hosts``: further names by which it may be called. Needs the extra ``web``."""
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect
    from starlette.routing import Route

    site = Site(store, tools)
    job = "/api/jobs/{id:str}"
    routes = [
        Route("/", site.page), Route("/web/{name:str}", site.page), Route("/api", site.about),
        *(
            Route(f"/api/{verb}", getattr(site, verb), methods=["POST"])
            for verb in ("generate", "extend", "separate", "accompany")
        ),
        Route(job, site.job), Route(job, site.cancel, methods=["DELETE"]), Route(f"{job}/events", site.events),
        Route(f"{job}/sounds/{{name:str}}", site.sound), Route(f"{job}/sounds.zip", site.archive),
    ]  # fmt: skip
    faults = (Refused, BadUpload, RequestError, HTTPException, ClientDisconnect, Exception)
    return Guard(Starlette(routes=routes, exception_handlers=dict.fromkeys(faults, _told)), hosts)
