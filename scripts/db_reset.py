#!/usr/bin/env python3
"""Delete the whole ledger and start anew, after asking; the same as `ledger reset`."""

from ledger.cli.admin import reset

if __name__ == "__main__":
    reset()
