"""``python -m services.mailer migrate | subscribe | unsubscribe``: who gets the digest."""

import sys

from services.mailer.command import main

sys.exit(main())
