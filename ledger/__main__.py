"""`python -m ledger`, which runs the command `ledger`."""

from ledger.cli.main import main

main()
