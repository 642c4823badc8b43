"""What a node hears, and for whom: from the notification to the mailbox."""
