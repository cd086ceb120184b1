"""Which acks to send for the deliveries of one channel that are finished: few frames, and never one too many."""

from __future__ import annotations


class AckLedger:
    """Coalesces finished delivery tags.

    Tags count up from 1. The contiguous finished prefix is acked by one ``multiple``, which names its highest tag that
    is still outstanding: a tag named twice is answered by the broker with 406 and costs the channel. What is finished
    beyond a gap is acked singly.
    """

    def __init__(self) -> None:
        self._lowest = 1  # everything below is answered
        self._highest = 0  # the last one delivered
        self._finished: set[int] = set()  # to be acked by the next collect()
        self._answered: set[int] = set()  # above _lowest, answered already

    def delivered(self, tag: int) -> None:
        """Note a new delivery."""
        if tag > self._highest + 1:  # never seen from RabbitMQ; what was skipped is not ours to ack
            self._answered.update(range(self._highest + 1, tag))
        self._highest = max(self._highest, tag)

    def finish(self, tag: int) -> bool:
        """Ack *tag* with the next ``collect()``; False when it is not outstanding."""
        if not self._outstanding(tag):
            return False
        self._finished.add(tag)
        return True

    def answer(self, tag: int) -> bool:
        """Note that *tag* is answered otherwise (released, rejected); False when it is not outstanding."""
        if not self._outstanding(tag):
            return False
        self._answered.add(tag)
        return True

    def collect(self) -> list[tuple[int, bool]]:
        """Return the acks to send now as (tag, multiple), in order; what they cover is answered from here on."""
        acks: list[tuple[int, bool]] = []
        last, count = self._pass_prefix()
        if count:
            acks.append((last, count > 1))
        if self._finished:
            acks.extend((tag, False) for tag in sorted(self._finished))
            self._answered |= self._finished
            self._finished.clear()
        return acks

    def _pass_prefix(self) -> tuple[int, int]:
        """Move past what is answered or finished from the lowest tag on; return the last finished tag and how many."""
        finished, answered = self._finished, self._answered
        tag, last, count = self._lowest, 0, 0
        while True:
            if tag in finished:
                finished.remove(tag)
                last, count = tag, count + 1
            elif tag in answered:
                answered.remove(tag)
            else:
                break
            tag += 1
        self._lowest = tag
        return last, count

    def _outstanding(self, tag: int) -> bool:
        if not self._lowest <= tag <= self._highest:
            return False
        return tag not in self._finished and tag not in self._answered
