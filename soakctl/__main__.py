"""`python -m soakctl`, for those whose PATH does not have the script."""

from __future__ import annotations

import sys

from soakctl.main import main

if __name__ == "__main__":
    sys.exit(main())
