"""Somebody else's paged HTTP API, which fails now and then: what the sync pulls from in the demo."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

#: Its name among the sync's sources, its items, and how many it shows at a time.
NAME = "shop"
ITEMS = 120
_PAGE = 15

#: What it answers to its first requests, where that is no page; the next ones are answered as they should be.
_FAULTS: Mapping[int, Callable[[], Response]] = {
    1: lambda: PlainTextResponse("come again", 429, {"Retry-After": "1"}),
    3: lambda: PlainTextResponse("something is wrong here", 500),
    5: lambda: Response(b'{"data": [{"id": 1, "sta', media_type="application/json"),
}


def sources(path: Path, port: int) -> None:
    """Write the sync's sources file for a shop at *port*. JSON is YAML too."""
    source = {
        "url": f"http://127.0.0.1:{port}/orders?limit={_PAGE}",
        "items": "data",
        "key": "id",
        "fields": {"id": "integer", "status": "text"},
        "next": "after",
        "parameter": "after",
    }
    path.write_bytes(orjson.dumps({"sources": {NAME: source}}))


def application() -> Starlette:
    """The API: ``GET /orders?after=ID``."""
    requests = itertools.count()

    def orders(request: Request) -> Response:
        if fault := _FAULTS.get(next(requests)):
            return fault()
        first = int(request.query_params.get("after", 0)) + 1
        last = min(first + _PAGE - 1, ITEMS)
        shown = [{"id": number, "status": "new"} for number in range(first, last + 1)]
        return JSONResponse({"data": shown, "after": last if last < ITEMS else None})

    return Starlette(routes=[Route("/orders", orders)])


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve on the listening socket that was inherited as *--fd*, until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m services.demo.shop", description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="the listening socket")
    uvicorn.run(application(), fd=parser.parse_args(arguments).fd, log_level="warning")


if __name__ == "__main__":
    main()
