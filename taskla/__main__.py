"""``python -m taskla`` is the command ``taskla``."""

from taskla.cli import main

if __name__ == "__main__":
    main()
