"""``python -m services.audit migrate | list``: the audit's table, and what is in it."""

import sys

from services.audit.command import main

sys.exit(main())
