"""Publishing inside transactions, from SQL and by triggers."""
