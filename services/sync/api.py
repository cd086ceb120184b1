"""Asks paged HTTP APIs for a page at a time, and believes nothing they say about where to go or how much to read."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Self

import httpx2

from penstock.pacing.pacer import Pacer
from services.sync.pages import read_page
from services.sync.ports import NotNow, Page, Place, Refused
from services.sync.retry_after import retry_after
from services.sync.sources import Source

#: Redirects that are followed for one page.
_HOPS = 5

#: Characters of a foreign text that are told.
_TOLD = 200


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one page may take: *timeout* for all of it, *max_bytes* of body; *longest_wait*: what Retry-After gets."""

    timeout: timedelta
    max_bytes: int
    longest_wait: timedelta


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: httpx2.Headers
    body: bytes = b""
    link: str | None = None


class HttpApi:
    """See ``Api``. Its connections are used again, and closed with the block."""

    def __init__(self, hosts: Pacer, bounds: Bounds, tokens: Mapping[str, str]) -> None:
        """*tokens*: bearer tokens by the name of their source."""
        self._hosts = hosts
        self._bounds = bounds
        self._tokens = tokens
        # No proxy, netrc or certificates that the environment names: where it goes is the sources' file's to say.
        self._http = httpx2.AsyncClient(follow_redirects=False, trust_env=False, timeout=bounds.timeout.total_seconds())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def page(self, source: Source, place: Place, *, returning: bool) -> Page | None:
        """See ``Api.page``."""
        url = _address(source, place.cursor)
        deadline = asyncio.get_running_loop().time() + self._bounds.timeout.total_seconds()
        for _ in range(_HOPS + 1):
            async with self._hosts.passing(_host(url), returning=returning):
                answer = await self._asked(source, url, place.etag, deadline)
                if answer.status == httpx2.codes.NOT_MODIFIED and place.etag is not None:
                    return None
                if not _is_redirect(answer):
                    return self._read(source, url, answer)
            url = _allowed(source, url, answer.headers.get("location", ""), redirect=True)
            returning = True  # who is half way goes before those who come for the first time
        raise NotNow(f"{source.url} leads from one place to the next, {_HOPS} times and on")

    def _read(self, source: Source, url: httpx2.URL, answer: _Answer) -> Page:
        link = None if answer.link is None else str(_allowed(source, url, answer.link))
        page = read_page(source, answer.body, link=link, etag=answer.headers.get("etag"))
        if page.following is not None and _address(source, page.following, at=url) == url:
            raise Refused(f"{_shown(url)} names itself as its next page")
        if page.following is None or source.parameter is not None:
            return page
        return Page(page.items, str(_address(source, page.following, at=url)), page.etag)

    async def _asked(self, source: Source, url: httpx2.URL, etag: str | None, deadline: float) -> _Answer:
        try:
            async with (
                asyncio.timeout_at(deadline),
                self._http.stream("GET", url, headers=self._headers(source, url, etag)) as response,
            ):
                return await self._answer(url, response)
        except TimeoutError:
            seconds = self._bounds.timeout.total_seconds()
            raise NotNow(f"{_shown(url)} gave no whole answer within {seconds:g} s") from None
        except (httpx2.RequestError, httpx2.InvalidURL) as error:
            words = " ".join(str(error).split()) or "no words"
            raise NotNow(f"{_shown(url)}: {type(error).__name__}: {words[:_TOLD]}") from error

    def _headers(self, source: Source, url: httpx2.URL, etag: str | None) -> dict[str, str]:
        headers = {"accept": "application/json", "accept-encoding": "identity", "user-agent": "penstock-sync"}
        if etag is not None:
            headers["if-none-match"] = etag
        if source.name in self._tokens and _host(url) == source.host:  # not where a redirect leads to
            headers["authorization"] = f"Bearer {self._tokens[source.name]}"
        return headers

    async def _answer(self, url: httpx2.URL, response: httpx2.Response) -> _Answer:
        status = response.status_code
        answer = _Answer(status, response.headers)
        if status == httpx2.codes.NOT_MODIFIED or _is_redirect(answer):
            return answer
        if status != httpx2.codes.OK:
            raise self._no_page(url, answer)
        if response.headers.get("content-encoding", "identity") != "identity":
            # What is packed may be of any size once it is unpacked.
            raise Refused(f"{_shown(url)} answers packed, though asked not to")
        return _Answer(status, response.headers, await self._body(url, response), _next_link(response))

    def _no_page(self, url: httpx2.URL, answer: _Answer) -> NotNow | Refused:
        words = f"{_shown(url)} answered {answer.status}"
        throttled = answer.status in (429, 503)
        after = retry_after(answer.headers, longest=self._bounds.longest_wait) if throttled else None
        if after is not None:
            return NotNow(f"{words} and asks to come again in {after.total_seconds():g} s", after=after, failed=False)
        if answer.status in (408, 425, 429) or answer.status >= 500:
            return NotNow(words, failed=answer.status != 429)
        return Refused(words)

    async def _body(self, url: httpx2.URL, response: httpx2.Response) -> bytes:
        found = bytearray()
        async for part in response.aiter_raw():
            found += part
            if len(found) > self._bounds.max_bytes:
                raise Refused(f"{_shown(url)} answers with more than {self._bounds.max_bytes} bytes")
        return bytes(found)


def _address(source: Source, cursor: str | None, *, at: httpx2.URL | None = None) -> httpx2.URL:
    """The URL of the page that *cursor* names, from *at*. Raises ``Refused`` for one that is not the source's."""
    base = httpx2.URL(source.url)
    if cursor is None:
        return base
    if source.parameter is not None:
        return base.copy_merge_params({source.parameter: cursor})
    return _allowed(source, at or base, cursor)


def _allowed(source: Source, url: httpx2.URL, location: str, *, redirect: bool = False) -> httpx2.URL:
    """Where *location* leads from *url*. Raises ``Refused`` when that is not where *source* may be asked."""
    what = "redirects" if redirect else "names a next page"
    try:
        there = url.join(location)
    except (httpx2.InvalidURL, ValueError):
        raise Refused(f"{_shown(url)} {what} to what is no URL: {location[:_TOLD]!r}") from None
    hosts = (source.host, *(source.redirects if redirect else ()))
    if not location or there.scheme != source.scheme or _host(there) not in hosts or there.userinfo:
        raise Refused(f"{_shown(url)} {what} to {_shown(there)!r:.{_TOLD}}, and only {', '.join(hosts)} is allowed")
    return there.copy_with(fragment=None)


def _host(url: httpx2.URL) -> str:
    return url.netloc.decode("ascii", "replace")


def _shown(url: httpx2.URL) -> str:
    """*url* without its query and login, where secrets are: it is told in dead letters and logs."""
    return f"{url.scheme}://{_host(url)}{url.path}"


def _is_redirect(answer: _Answer) -> bool:
    return answer.status in (301, 302, 303, 307, 308)


def _next_link(response: httpx2.Response) -> str | None:
    return response.links.get("next", {}).get("url")
