"""Compile, of the installed packages, what Penstock and the services load; the rest stays as source.

The root file system may be read-only later, so that what is not compiled now would be compiled at every start.
Compiling everything would add a tenth to the image for modules that nobody imports.
"""

import importlib
import pkgutil
import sys
import sysconfig
from pathlib import Path
from py_compile import PycInvalidationMode
from py_compile import compile as compile_file

import penstock
import services

_INSTALLED = sysconfig.get_path("purelib")


def main() -> None:
    """Import everything of ours, then compile whatever that has loaded."""
    for package in (penstock, services):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.endswith("__main__"):
                importlib.import_module(found.name)
    for module in list(sys.modules.values()):
        source = getattr(module, "__file__", None) or ""
        if source.startswith(_INSTALLED) and source.endswith(".py"):
            compile_file(source, doraise=True, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)
    compiled = sum(1 for _ in Path(_INSTALLED).rglob("*.pyc"))
    sys.stdout.write(f"compiled {compiled} modules of the installed packages\n")


main()
