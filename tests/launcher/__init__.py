"""The launcher's package is no part of gcpod's import path: it is put there as a job does."""

import sys

from gcpod.runtimes import LAUNCHER

sys.path.insert(0, str(LAUNCHER))
