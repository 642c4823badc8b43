"""`python -m pgchannels` is the command `pgchannels`."""

import sys

from pgchannels.cli import main

sys.exit(main())
