"""``python -m mtbert``."""

from mtbert.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
