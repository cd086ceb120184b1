"""The mailer's jobs."""

from __future__ import annotations

import asyncio

from penstock import Job, Reject, Retry
from penstock.pacing.pacer import Pacer
from penstock_jobs.email import SendEmail
from services.mailer.domains import domain_of
from services.mailer.letters import letter
from services.mailer.ports import Files, Missing, Post, Refused, Unusable
from services.mailer.templates import TemplateProblem, Templates


class Mailer:
    """Writes mails with *templates* and *files* and hands them to *post* as *sender*, as *domains* let them. Holds no
    state; safe to share by tasks."""

    def __init__(self, post: Post, templates: Templates, files: Files, domains: Pacer, sender: str) -> None:
        self._post = post
        self._templates = templates
        self._files = files
        self._domains = domains
        self._sender = sender

    async def send_email(self, job: Job[SendEmail]) -> None:
        """Send one mail. One that cannot be written or is refused for good is rejected; ``NotNow`` is tried again.

        While its domain has to be left alone it waits, and loses no attempt."""
        try:
            # Every copy after the first has waited somewhere, and goes before those that come for the first time.
            async with self._domains.passing(domain_of(job.args.to), returning=job.copy > 0):
                await self._post.send(await self._written(job), self._sender, job.args.to)
        except Missing as error:
            raise Retry(str(error)) from error
        except (TemplateProblem, Unusable, Refused) as error:
            raise Reject(str(error)) from error

    async def _written(self, job: Job[SendEmail]) -> bytes:
        text = self._templates.render(job.args.template, job.args.values)
        if not job.args.attachments:
            return letter(job, text, self._sender)
        # Files are slow to read, and large ones slow to write as text: not on the loop, which others need.
        return await asyncio.to_thread(lambda: letter(job, text, self._sender, self._files.read(job.args.attachments)))
