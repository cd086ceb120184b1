"""Two guards of a running worker: a consumer that gets nothing though messages wait, and a loop that does not turn."""

from __future__ import annotations

import asyncio

from penstock.consuming import Consuming
from penstock.errors import AccessRefused, BrokerError
from penstock.events import Events, LoopLagged, LoopTurned, WatchdogReopened
from penstock.ports import Link, Subscription

_LAG_TICK = 0.5
_LAG_LIMIT = 2.0


async def watch_consumer(
    link: Link, subscription: Subscription, consuming: Consuming, events: Events, queue: str, patience: float
) -> None:
    """Close *subscription* when slots are free and messages ready but nothing came for *patience* seconds.

    A consumer can be gone without a word (a broker that lost it, a 4.3 consumer timeout); closing makes the worker open
    another. Looks are a passive declare each, and only while nothing comes. Returns when the subscription ends.
    """
    now = asyncio.get_running_loop().time
    fed = now()
    while not subscription.ended.done():
        await asyncio.wait([subscription.ended], timeout=patience / 2)
        if not consuming.starved:
            fed = now()  # a slot that is free only now has waited for nothing yet
        silent = now() - max(fed, consuming.last_delivery)
        if subscription.ended.done() or silent < patience:
            continue
        try:
            ready = await link.depth(queue)
        except AccessRefused:
            return  # no right to look (4.3.0)
        except BrokerError:
            continue  # slow to answer now; or the link is gone, which ends the subscription too
        if ready and consuming.starved and now() - consuming.last_delivery >= patience:
            events.emit(WatchdogReopened(queue, ready, silent))
            await subscription.close()


async def watch_loop(consuming: Consuming, events: Events) -> None:
    """Tell how late the loop comes round, and every time it did not turn for 2 s, with the kinds that ran; and what
    jobs there were.

    Runs until cancelled.
    """
    loop = asyncio.get_running_loop()
    while True:
        before = loop.time()
        kinds = consuming.recent_kinds()
        await asyncio.sleep(_LAG_TICK)
        lag = max(0.0, loop.time() - before - _LAG_TICK)
        consuming.count()
        events.emit(LoopTurned(lag))
        if lag >= _LAG_LIMIT:
            events.emit(LoopLagged(lag, tuple(sorted(kinds | consuming.recent_kinds()))))
