"""The layer in one process: a node in each event loop that receives, a borrowed sender for everybody else."""
