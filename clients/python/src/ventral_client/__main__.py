"""`python -m ventral_client` is `ventral-client`."""

import sys

from .cli import main

sys.exit(main())
