"""Mail to one person, from a template: kind ``email.send``."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError

from penstock import JobKind

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_ADDRESS = re.compile(rf"[A-Za-z0-9.!#$%&'*+/=?^_`{{|}}~-]{{1,64}}@{_LABEL}(?:\.{_LABEL})*")


def _plain(address: str) -> str:
    # Not a pattern of the schema: its error would show the whole expression to whoever mistyped an address.
    if len(address) > 254 or _ADDRESS.fullmatch(address) is None:
        raise PydanticCustomError("address", "must be a plain address such as ada@example.org")
    return address


#: A plain ``local@domain`` in ASCII: no display name, no quotes, no control characters.
#: International domains are written as punycode.
Address = Annotated[str, AfterValidator(_plain), WithJsonSchema({"type": "string", "format": "email"})]

#: The name of a template, never a path.
TemplateName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,64}$")]

#: The name of one file or folder: it cannot climb, be hidden or hold a separator.
PathName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._%-]{0,199}$")]

#: Files in one mail.
MOST_ATTACHMENTS = 10


def _shown(name: str) -> str:
    # Printable: no line end, and nothing that turns the direction of writing round, so that fdp.exe reads as exe.pdf.
    if not name.isprintable() or set(name) & set('/\\"') or name != name.strip(" ."):
        raise PydanticCustomError("name", "must be a plain file name such as July's sales.pdf")
    return name


class Attachment(BaseModel):
    """A file that goes with a mail: not its content but where the mailer finds it, *file* in *folder* below its folder
    for attachments. *name*: what the reader sees instead. *sha256*: the only content that will do."""

    model_config = ConfigDict(frozen=True, extra="forbid")  # a misspelt sha256 must not let any content through

    folder: PathName
    file: PathName
    name: Annotated[str, StringConstraints(min_length=1, max_length=120), AfterValidator(_shown)] | None = None
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None


class SendEmail(BaseModel):
    """What to send to whom. *values* fill the template; what it needs and does not find is an error, not a blank.

    *attachments* that are not there yet are waited for, as long as a mail is tried again.
    """

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={
            "examples": [
                {"to": "ada@example.org", "template": "welcome", "values": {"name": "Ada"}},
                {
                    "to": "grace@example.org",
                    "template": "order_confirmation",
                    "values": {"name": "Grace", "item": "teapot", "quantity": 2, "total": "49.80"},
                    "order_id": "A-1001",
                },
                {
                    "to": "grace@example.org",
                    "template": "report",
                    "values": {"name": "Grace", "title": "Sales in July"},
                    "attachments": [{"folder": "2026-07", "file": "north-1.pdf", "name": "Sales in July.pdf"}],
                },
            ]
        },
    )

    to: Address
    template: TemplateName
    values: dict[str, JsonValue] = Field(default_factory=dict)
    order_id: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = None
    attachments: Annotated[tuple[Attachment, ...], Field(max_length=MOST_ATTACHMENTS)] = ()


SEND_EMAIL = JobKind("email.send", SendEmail)
