"""The apps as installed: nothing is defined here."""

from ahh_federated.runtimes.flower.stock import client, server

__all__ = ["client", "server"]
