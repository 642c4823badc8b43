"""A layer with several servers: what each verb does, and what a server that is away stops."""
