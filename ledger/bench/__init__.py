"""`ledger bench`: every figure beside a control that is measured in the same run, on a server of its own."""
