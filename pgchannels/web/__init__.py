"""What the web frameworks share: messages as JSON, subscriptions as Server-Sent Events, servers that stop."""
