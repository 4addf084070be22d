"""`python -m preforch_cli`: the `preforch` command."""

import sys

from preforch_cli.main import main

if __name__ == "__main__":
    sys.exit(main())
