"""The suites, each with what it owns.

Quick, run by `pytest`:

* `unit`: parts without a database: the codec, mailboxes, the router, names, options.
* `layer`: what one layer promises its users, on a real PostgreSQL.
* `contract`: the specification of Channels' layers, and beside an oracle.
* `lifecycle`: opening, closing, loops, threads, forks.
* `schema`: the tables, their functions, plans, roles and revisions.
* `types`, `cli`: what a type checker and a shell see.

Slow, run by `pytest --slow`:

* `faults`: lost connections, crashes, failovers, locks, slow links; a state machine over all of them.
* `patroni`: a Patroni cluster of three servers: switchovers, failovers, partitions, by several hosts and by HAProxy.
* `processes`: several processes at once.
* `servers`: one layer with several servers.
* `rolling`: the version before and this one on the same tables, while these are upgraded and go back.
* `chaos`: the ledger of the random faults that `python -m tests.chaos` makes.
* `doors`: what comes in from outside: payloads, URLs, settings, tools, web clients.
* `django`, `docs`, `examples`, `demo`: projects, pages, programs and browsers as their users run them.
* `embedded`, `wheel`: the private server, the package.

What several of them need lives in `support`; none imports from the tests of another.
"""
