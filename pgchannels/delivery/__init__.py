"""The road of a message: writer, database, listener, router, mailbox. Knows bytes and addresses, not payloads."""
