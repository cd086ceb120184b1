"""RabbitMQ's management UI in a real browser, worked as a person would: by headings, labels and buttons."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

from playwright.async_api import Locator, Page, async_playwright, expect

from penstock.testing.broker_node import BrokerInfo

#: Where pictures are kept for the docs; nowhere when it is not set.
PICTURES = "PENSTOCK_PICTURES"

#: Milliseconds. The UI reads its numbers every 5 s, and the broker counts as often.
PATIENCE = 40_000


class ManagementUi:
    """A browser's page, logged in. One task at a time."""

    def __init__(self, page: Page, broker: BrokerInfo, vhost: str) -> None:
        self.page = page
        self._base = broker.management_url
        self._vhost = quote(vhost, safe="")

    async def open(self, place: str, *names: str) -> None:
        """Open ``queues``, ``connections``, …; with *names*, the page of one that lives in the virtual host."""
        inside = [self._vhost, *(quote(name, safe="") for name in names)] if names else []
        await self.page.goto("/".join([f"{self._base}/#", place, *inside]))

    async def section(self, heading: str) -> Locator:
        """The section of the page under *heading*, unfolded."""
        title = self.page.locator("h2").filter(has_text=re.compile(f"^{heading}"))
        section = self.page.locator("div.section, div.section-hidden, div.section-visible").filter(has=title).last
        await expect(title).to_be_visible(timeout=PATIENCE)
        if not await section.locator(".hider").first.is_visible():
            await title.click()
        return section

    async def says(self, text: str) -> None:
        """Wait for a message box that says *text*, and close it."""
        box = self.page.locator(".form-popup-info, .form-popup-warn").filter(has_text=text)
        await expect(box).to_be_visible(timeout=PATIENCE)
        await box.get_by_text("Close").click()
        await expect(box).to_have_count(0, timeout=PATIENCE)  # it fades: the next may say the same

    async def lists(self, name: str | re.Pattern[str], *cells: str) -> None:
        """Wait until a table has a row with *name* in it, and with a cell that reads just so for each of *cells*."""
        row = self.page.locator("table.list tr").filter(has=self.page.locator("td").filter(has_text=name))
        for cell in cells:
            row = row.filter(has=self.page.get_by_role("cell", name=cell, exact=True))
        await expect(row.first).to_be_visible(timeout=PATIENCE)

    async def picture(self, name: str) -> None:
        """Keep what the page shows for the docs, when somebody wants it."""
        folder = os.environ.get(PICTURES)
        if folder:
            await self.page.screenshot(path=Path(folder) / f"{name}.png", full_page=False)


@asynccontextmanager
async def management_ui(broker: BrokerInfo, vhost: str) -> AsyncIterator[ManagementUi]:
    """A fresh browser (Debian's chromium), logged in as the broker's administrator."""
    program = shutil.which("chromium")
    assert program is not None, "the browser tests need chromium: apt-get install chromium"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = await browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(PATIENCE)
        await page.goto(broker.management_url)
        await page.locator("input[name=username]").fill(broker.user)
        await page.locator("input[name=password]").fill(broker.password)
        await page.locator("input[type=submit]").click()
        await expect(page.get_by_role("link", name="Connections", exact=True)).to_be_visible(timeout=PATIENCE)
        yield ManagementUi(page, broker, vhost)
        await browser.close()
