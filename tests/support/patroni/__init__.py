"""A Patroni cluster on the loopback: three PostgreSQL servers, one etcd, and an HAProxy before them."""

from tests.support.patroni.cluster import PatroniCluster as PatroniCluster
