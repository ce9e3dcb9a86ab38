"""Entry point of a site's node daemon: ``python clients/node.py KIT``."""

import sys
from pathlib import Path

from fedsecure.daemons.node import main
from fedsecure.daemons.shutdown import run_main

if __name__ == "__main__":
    run_main(main, Path(sys.argv[1]).absolute())
