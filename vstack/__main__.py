"""`python -m vstack`."""

import sys

from vstack.cli import main

if __name__ == "__main__":
    sys.exit(main())
