"""``python -m toyscore``."""

from toyscore.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
