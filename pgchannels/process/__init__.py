"""The layer in one process: a node in each event loop that receives, a shared sender for everybody else."""
