"""``python -m services.reports check | run``: try definitions of reports, and make one by hand."""

import sys

from services.reports.command import main

sys.exit(main())
