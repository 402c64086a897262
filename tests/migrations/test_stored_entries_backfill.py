"""Migration 0005 stores the same entry states as the folds; the previous release keeps working."""
