"""``python -m services.orders FILE|-``: submit orders."""

import sys

from services.orders.app import main

sys.exit(main())
