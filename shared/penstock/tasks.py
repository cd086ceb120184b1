"""Ends tasks and waits until they are gone."""

from __future__ import annotations

import asyncio
from typing import Any  # tasks of any kind


async def ended(*tasks: asyncio.Task[Any]) -> None:
    """Cancel *tasks* and wait for their end. What they raise is left for whoever asks them."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
