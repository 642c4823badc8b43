"""What is known of a host by its name: poolers and replicas of hosting providers, and the direct way beside them."""

import re
from typing import Final

_HINTS: Final = (
    (
        re.compile(r"\bep-[\w-]+-pooler\.\S*neon\.(tech|build):"),
        "this is Neon's pooled host, and its direct one has the same name without '-pooler'",
    ),
    (
        re.compile(r"\S+\.supabase\.(com|co):6543\b"),
        "port 6543 is Supabase's pooler in transaction mode, and port 5432 of the same host gives a session",
    ),
    (
        re.compile(r"\S+\.proxy-\w+\.[\w-]+\.rds\.amazonaws\.com\S*:"),
        "this is an RDS Proxy, which shares sessions, and the endpoint of the instance or cluster is the direct way",
    ),
    (
        re.compile(r"\S+\.postgres\.database\.azure\.com:6432\b"),
        "port 6432 is Azure's PgBouncer, and port 5432 of the same host is the server itself",
    ),
    (
        re.compile(r"\S+\.ondigitalocean\.com:25061\b"),
        "port 25061 is DigitalOcean's connection pool, and port 25060 of the same host is the server itself",
    ),
    (
        re.compile(r"\S+\.cluster-ro-\w+\.[\w-]+\.rds\.amazonaws\.com\S*:"),
        "this is Aurora's reader endpoint, and the writer's has 'cluster-' in place of 'cluster-ro-'",
    ),
)


def hint(hosts: str) -> str:
    """Return what is known of one of some hosts with their ports, as the end of a sentence; empty if nothing is."""
    return next((f" ({text})" for pattern, text in _HINTS if pattern.search(hosts)), "")
