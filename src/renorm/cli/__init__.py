"""The command line: parse, call, print.

Nothing heavy is imported before a command needs it, so ``renorm --help`` answers at once. An error that the user can
mend is one line on stderr and exit code 2; with ``RENORM_DEBUG=1`` its traceback is shown instead.
"""

import os
import sys
from collections.abc import Sequence

from renorm.cli.parser import build_parser
from renorm.errors import RenormError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 2 the user can mend it, 130 interrupted."""
    try:
        options = build_parser().parse_args(arguments)
        options.call(options)
        sys.stdout.flush()
    except (RenormError, ValueError) as error:
        if os.environ.get("RENORM_DEBUG"):
            raise
        return _complain(str(error), 2)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "memory" not in str(error):
            raise
        return _complain(f"not enough memory; take fewer or smaller fields ({error or 'out of memory'})", 2)
    except OSError as error:
        place = f" {error.filename}" if error.filename else ""
        return _complain(f"cannot read or write{place}: {error.strerror or error}", 2)
    except KeyboardInterrupt as stop:
        return _complain(str(stop) or "interrupted; what was written stays, `--resume` goes on", 130)
    return 0


def _complain(message: str, code: int) -> int:
    print("renorm: " + " ".join(message.split()), file=sys.stderr)
    return code
