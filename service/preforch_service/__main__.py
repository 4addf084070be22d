"""`python -m preforch_service`: the same as `preforch serve`."""

import argparse
import sys

from preforch_service.cli import add_arguments, run

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="preforch serve", description="Serve weights and, with them, answers."
    )
    add_arguments(parser)
    sys.exit(run(parser.parse_args()))
