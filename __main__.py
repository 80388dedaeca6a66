"""``python -m descant``: the command line of :mod:`descant.gen.cli`."""

from __future__ import annotations

import sys

from .gen.cli import main

if __name__ == "__main__":
    sys.exit(main())
