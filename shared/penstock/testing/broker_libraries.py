"""The part of RabbitMQ's libraries that a node needs, as a folder of links.

Erlang looks for each module that it loads in one folder of its path after the other, and RabbitMQ puts all plugins
there that are installed: on Debian's 3.10 some 50,000 looks in vain at every start, two fifths of its processor time.
The Erlang of RabbitMQ 4 remembers what is in its folders, and gains nothing by this.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

#: What every node runs.
_ALWAYS = ("rabbit", "rabbitmq_prelaunch")
_SERIES = "rabbitmq_server-3."
_NEEDS = re.compile(r"\{applications,\s*\[([^\]]*)\]")


def needed(installed: Path, plugins: Iterable[str]) -> list[str]:
    """The names of the folders below *installed* that a node with *plugins* needs; none where it is not known, or where
    nothing is gained.

    Applications that are not there are Erlang's own, or packed in archives, which RabbitMQ finds by itself.
    """
    known = {path.name.rpartition("-")[0]: path for path in installed.glob("*-*") if path.is_dir()}
    if not installed.parent.name.startswith(_SERIES) or not set(_ALWAYS) <= known.keys():
        return []
    found: dict[str, str] = {}
    left = [*_ALWAYS, *plugins]
    while left:
        name = left.pop()
        if name in known and name not in found:
            found[name] = known[name].name
            left += _needs(name, known)
    return sorted(found.values())


def link(folder: Path, installed: Path, names: Iterable[str]) -> None:
    """Let *folder* hold links to *names* in *installed*, and nothing else."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    for name in names:
        (folder / name).symlink_to(installed / name)


def variables(folder: Path, installed: Path) -> dict[str, str]:
    """The environment in which a node looks in *folder* for its libraries, and in *installed* for further plugins; both
    as it sees them itself."""
    # RabbitMQ's scripts set ERL_LIBS; Erlang's own option comes after them.
    further = f"{installed.parents[2] / 'plugins'}:{installed}"
    return {"ERL_ZFLAGS": f'-env ERL_LIBS "{folder}"', "RABBITMQ_PLUGINS_DIR": further}


def _needs(name: str, known: Mapping[str, Path]) -> list[str]:
    file = known[name] / "ebin" / f"{name}.app"
    said = _NEEDS.search(file.read_text()) if file.exists() else None
    return [] if said is None else [word.strip() for word in said[1].split(",")]
