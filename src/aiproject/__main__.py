"""``python -m aiproject``."""

from aiproject.cli import main

if __name__ == "__main__":
    main()
