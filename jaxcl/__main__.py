"""The command as a shell starts it: Ctrl-C is heard before anything else is loaded."""

import signal
import sys

from jaxcl.interrupts import heard


def main() -> int:
    try:
        with heard():
            from jaxcl.cli import main as command

            return command()
    except KeyboardInterrupt:
        print("\njaxcl: interrupted.", file=sys.stderr)
        return 130
    finally:
        # Only Python's shutdown is left, where no code could catch a KeyboardInterrupt.
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(main())
