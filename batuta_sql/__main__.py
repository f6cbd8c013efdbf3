"""``python -m batuta_sql`` is ``batuta-sql``."""

import sys

from batuta_sql.cli import main

sys.exit(main())
