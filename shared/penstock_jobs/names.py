"""How jobs name files that producer and worker share: by plain names, never by paths."""

from __future__ import annotations

from typing import Annotated

from pydantic import StringConstraints

#: The name of one file or folder: it cannot climb, be hidden or hold a separator.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
