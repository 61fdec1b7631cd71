"""``python -m mammo_lib.cli``, the same as ``mammo``."""

from .start import main

if __name__ == "__main__":  # worker processes import this file under another name
    main()
