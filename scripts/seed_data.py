#!/usr/bin/env python3
"""Append the sample data: the same as `ledger seed`."""

from ledger.cli.main import seed

if __name__ == "__main__":
    seed()
