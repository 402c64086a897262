#!/usr/bin/env python3
"""Delete all events and tables after confirmation and start an empty ledger, like `ledger reset`."""

from ledger.cli.main import reset

if __name__ == "__main__":
    reset()
