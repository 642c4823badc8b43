"""What many listening processes cost a server."""
