"""The synthetic run of the widget tests serves these as well."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "widgets"))
