"""The catalogue of kinds, as the command line finds it."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any  # a catalogue's kinds have arguments of many types

from penstock.errors import RegistrationError
from penstock.factory import find_project, load_object
from penstock.job import JobKind

#: Where it is when nothing says otherwise.
CATALOGUE = "penstock_jobs:KINDS"


def read_catalogue(catalogue: str) -> Mapping[str, JobKind[Any]]:
    """The kinds of the collection ``MODULE:NAME``, by name. Raises ``RegistrationError`` in one line."""
    found = load_object(catalogue, "a catalogue: --catalogue MODULE:NAME")
    kinds = list(found.values()) if isinstance(found, Mapping) else found
    if not isinstance(kinds, list | tuple | set | frozenset) or not all(isinstance(kind, JobKind) for kind in kinds):
        raise RegistrationError(f"{catalogue} is not a collection of JobKinds")
    return {kind.name: kind for kind in kinds}


def there_is_one() -> bool:
    """Whether the project around the current directory, or what is installed, has the usual catalogue."""
    module = CATALOGUE.partition(":")[0]
    find_project(module)
    return importlib.util.find_spec(module) is not None
