"""The version of this library: what it tells brokers, metrics and people."""

__version__ = "0.1.0"
