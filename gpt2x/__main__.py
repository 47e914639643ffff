"""python -m gpt2x"""

import sys

from gpt2x.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
