"""A long run beside strangers that stand in the way: do the tables stay small, and does nothing decay?"""
