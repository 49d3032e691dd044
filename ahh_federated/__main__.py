"""`python -m ahh_federated` is the command `ahh`."""

import sys

from ahh_federated.cli.main import main

sys.exit(main())
