"""A state machine that does everything to a few layers under every fault, and a model of what was promised."""
