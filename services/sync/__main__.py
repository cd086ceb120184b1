"""``python -m services.sync migrate | status | rewind``: the sync's tables, and how far it is."""

import sys

from services.sync.command import main

sys.exit(main())
