"""``python -m services.demo``: see ``make demo`` and ``make up``."""

import sys

from services.demo.app import main

sys.exit(main())
