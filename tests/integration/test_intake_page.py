"""The OpenAPI page of the intake in a real browser: it loads nothing from elsewhere, and a job can be sent from it."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Page, async_playwright, expect

from tests.support.intake import Intake, intake_process
from tests.support.management_ui import PICTURES
from tests.support.working import LEVELS, depth, empty

pytestmark = pytest.mark.timeout(120)

_PATIENCE = 30_000


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    """A page of Debian's chromium."""
    program = shutil.which("chromium")
    assert program is not None, "the browser tests need chromium: apt-get install chromium"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = await browser.new_page(viewport={"width": 1100, "height": 900})
        page.set_default_timeout(_PATIENCE)
        yield page
        await browser.close()


async def test_a_job_is_sent_from_the_page_which_asks_nobody_else(page: Page, url: str, tmp_path: Path) -> None:
    await empty(url, "jobs.email", *LEVELS)
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
    with intake_process(url, tmp_path) as intake:
        await send(page, intake)
        own = (f"http://127.0.0.1:{intake.port}/", "data:")
    assert complaints == []
    assert [foreign for foreign in asked if not foreign.startswith(own)] == []
    assert await depth(url, "jobs.email") == 1


async def send(page: Page, intake: Intake) -> None:
    """Send the first example of a mail, and wait for its answer."""
    await page.goto(f"http://127.0.0.1:{intake.port}/docs")
    await page.locator('[data-path="/v1/jobs/email.send"]').click()
    await page.get_by_role("button", name="Execute").click()
    status = page.locator(".live-responses-table .response-col_status").last
    await expect(status).to_contain_text("202", timeout=_PATIENCE)
    folder = os.environ.get(PICTURES)
    if folder:
        await asyncio.to_thread(Path(folder).mkdir, parents=True, exist_ok=True)
        await page.evaluate("scrollTo(0, 0)")
        await page.screenshot(path=Path(folder) / "intake-page.png")
