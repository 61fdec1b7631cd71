"""Run a script as ``python SCRIPT`` does; a fault of its input or a missing package is one line, Ctrl-C none.

It is run by its path, so that the script itself decides what is imported first.
"""

import os
import runpy
import sys


def run_script() -> None:
    """Run the script that the first argument names; the others are its own."""
    del sys.argv[0]
    sys.path[0] = os.path.dirname(sys.argv[0])
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except KeyboardInterrupt:
        sys.exit(130)  # the command that runs this says it
    except ModuleNotFoundError as error:
        if "." in (error.name or "."):  # a module of a package that is there
            raise
        sys.exit(f"mammo: {sys.argv[0]}: the package {error.name} is not installed")
    except Exception as error:
        from mammo_lib.errors import InputError

        if not isinstance(error, InputError):
            raise
        print(f"mammo: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    run_script()
