"""The page for people: a few files, read once and served as they are; nothing else of the disk can be asked for."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

FOLDER = Path(__file__).parent / "page"
FIRST = "index.html"
# Not left to the machine's table of types: browsers refuse modules that come as anything else.
MEDIA_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
# What somebody types, or a server answers, can never run as a script; sounds are played from memory.
POLICY = (
    "default-src 'self'; media-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'"
)


@dataclass(frozen=True)
class PageFile:
    """One file of the page."""

    content: bytes
    media_type: str

    @cached_property
    def etag(self) -> str:
        return f'"{hashlib.sha256(self.content).hexdigest()}"'

    def answer(self, request: Request) -> Response:
        """Browsers keep the file, and ask each time whether it is still the same: a new server has a new page."""
        headers = {
            "ETag": self.etag,
            "Cache-Control": "no-cache",
            "Content-Security-Policy": POLICY,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
        }
        known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
        if self.etag in known:
            return Response(status_code=304, headers=headers)
        return Response(self.content, media_type=self.media_type, headers=headers)


def page_routes() -> list[Route]:
    """Return the routes of the page: itself at the root, and beside it what it is made of."""
    files = {
        path.name: PageFile(path.read_bytes(), MEDIA_TYPES[path.suffix])
        for path in FOLDER.iterdir()
        if path.suffix in MEDIA_TYPES  # not what editors and file managers leave behind
    }

    async def page(request: Request) -> Response:
        return files[FIRST].answer(request)

    async def part(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in files:
            raise HTTPException(404, "there is no such part of the page")
        return files[name].answer(request)

    return [Route("/", page, methods=["GET"]), Route("/page/{name}", part, methods=["GET"])]
