"""Entry point of an aggregator's daemon: ``python server/aggregator.py KIT``."""

import sys
from pathlib import Path

from fedsecure.daemons.aggregator import main
from fedsecure.daemons.shutdown import run_main

if __name__ == "__main__":
    run_main(main, Path(sys.argv[1]).absolute())
