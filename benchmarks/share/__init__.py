"""How several servers share the work: the CPU time that each of them spends on its messages."""
