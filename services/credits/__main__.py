"""``python -m services.credits migrate``: make the ledger's tables."""

import sys

from services.credits.app import main

sys.exit(main())
