"""Channels' channel layer specification as tests, on our layer and, where it applies, on Channels' in-memory layer.

| section of the specification | tests |
|---|---|
| Messages | `test_messages.py` |
| Channels | `test_channels.py`, `test_process_channels.py`, `test_two_nodes.py` |
| Extensions, Groups | `test_groups.py`, `test_flush.py` |
| Capacity | `test_capacity.py` |
| Specification Details | `test_names.py`, `test_details.py` |
| Channel Semantics | `test_against_oracle.py`, `test_channels.py`, `test_two_nodes.py` |
| Persistence | `test_persistence.py` |
| Strings and Unicode | `test_names.py`, `test_messages.py` |
"""
