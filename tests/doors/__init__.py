"""What comes in from outside: payloads, URLs, settings, tools, web clients. One file for each door."""
