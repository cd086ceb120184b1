"""``python -m services.intake [serve | token]``: the HTTP door, and the tokens that open it."""

import sys

from services.intake.command import main

sys.exit(main())
