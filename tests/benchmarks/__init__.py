"""How light and how fast soakd is, measured side by side with what it is compared to.

An installed program has its bytecode beside it. With this variable set an editable installation
would compile every module at every start, which no user does.
"""

import os

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
