"""A Patroni cluster under load: switchovers, failovers and partitions, by several hosts and by HAProxy."""
