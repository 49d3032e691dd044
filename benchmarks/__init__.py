"""Benchmarks of ahh_federated on public data; see README.md.  Nothing here is installed with the package."""
