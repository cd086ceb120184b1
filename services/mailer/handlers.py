"""The mailer's jobs."""

from __future__ import annotations

from penstock import Job, Reject
from penstock_jobs.email import SendEmail
from services.mailer.letters import letter
from services.mailer.ports import Post, Refused
from services.mailer.templates import TemplateProblem, Templates


class Mailer:
    """Writes mails with *templates* and hands them to *post* as *sender*. Holds no state; safe to share by tasks."""

    def __init__(self, post: Post, templates: Templates, sender: str) -> None:
        self._post = post
        self._templates = templates
        self._sender = sender

    async def send_email(self, job: Job[SendEmail]) -> None:
        """Send one mail. One that cannot be written or is refused for good is rejected; ``NotNow`` is tried again."""
        try:
            text = self._templates.render(job.args.template, job.args.values)
            await self._post.send(letter(job, text, self._sender), self._sender, job.args.to)
        except (TemplateProblem, Refused) as error:
            raise Reject(str(error)) from error
