"""A layer with several servers: which of them carries what, and all of them behind the verbs of one."""
