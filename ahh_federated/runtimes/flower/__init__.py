"""Flower as the engine: the only place that imports it.

Telemetry and update checks are switched off before the first import.
"""

import os

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
