"""A run of several processes under random faults, and the ledger that says whether every promise was kept."""
