"""The event-sourced budget and job ledger."""

__version__ = "0.1.0"
