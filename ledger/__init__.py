"""The event-sourced budget and job ledger."""
