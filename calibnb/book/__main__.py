"""python -m calibnb.book: see `building`."""

import sys

from calibnb.book.building import main

if __name__ == "__main__":
    sys.exit(main())
