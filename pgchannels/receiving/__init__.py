"""Receiving on a node: from the notification to the mailbox."""
