"""python -m calibnb.pipeline: see `parallel`."""

import sys

from calibnb.pipeline.parallel import main

if __name__ == "__main__":
    sys.exit(main())
