"""`vstack`: reads the command line, calls one function, turns errors into one line and an exit status.

Statuses: 0 done, 1 failed (one line on stderr says why), 2 wrong usage, 130 interrupted.
"""

import os
import sys
from collections.abc import Sequence
from typing import Final

from vstack.cli.parser import build_parser
from vstack.errors import VStackError

FAILED: Final = 1
INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = build_parser().parse_args(arguments)
    try:
        status: int = options.run(options)
        sys.stdout.flush()
        return status
    except VStackError as error:
        sys.stderr.write(f"vstack: {error}\n")
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone; Python would complain once more while it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        sys.stderr.write(f"vstack: {error}\n")
        return FAILED
