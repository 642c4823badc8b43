"""Settings that no layer can have."""

from typing import Any

# Nobody answers at port 1 of this machine.
POSTGRESQL = {"ENGINE": "django.db.backends.postgresql", "NAME": "shop", "HOST": "127.0.0.1", "PORT": 1}


URL = "postgresql://127.0.0.1:1/shop"


IMPOSSIBLE: dict[str, tuple[dict[str, Any], str]] = {
    "no database": ({}, "url.*database"),
    "no database but options": ({"prefix": "shop"}, "url.*database"),
    "empty url": ({"url": ""}, "url|postgresql"),
    "no url": ({"url": None}, "url"),
    "empty alias": ({"database": ""}, "database|alias"),
    "unknown alias": ({"database": "nowhere"}, "nowhere"),
    "unknown alias to use": ({"url": URL, "using": "nowhere"}, "'using' has 'nowhere', which is no alias"),
    "unknown option beside url": ({"url": URL, "capasity": 5}, "capasity"),
    "option of another layer": ({"url": URL, "hosts": [("127.0.0.1", 6379)]}, "hosts"),
    "unknown option beside keys": ({**POSTGRESQL, "NAMES": "shop"}, "names"),
    "url and keys": ({"url": URL, "NAME": "shop"}, "url.*name|name.*url"),
    "url and alias": ({"url": URL, "database": "default"}, "url.*database|database.*url"),
    "alias and keys": ({**POSTGRESQL, "database": "default"}, "database.*(name|keys)|name.*database"),
    "url of another database": ({"url": "mysql://127.0.0.1:1/shop"}, "postgresql"),
    "url that is none": ({"url": "no url"}, "url|postgresql"),
    "url with a port that is none": ({"url": "postgresql://127.0.0.1:port/shop"}, "url|port"),
    "engine sqlite3": ({**POSTGRESQL, "ENGINE": "django.db.backends.sqlite3"}, "sqlite3"),
    "engine mysql": ({**POSTGRESQL, "ENGINE": "django.db.backends.mysql"}, "mysql"),
    "port that is none": ({**POSTGRESQL, "PORT": "no port"}, "port"),
    "keys without a name": ({key: value for key, value in POSTGRESQL.items() if key != "NAME"}, "name"),
    "expiry that is no number": ({**POSTGRESQL, "expiry": "soon"}, "expiry"),
    "no expiry": ({**POSTGRESQL, "expiry": 0}, "expiry"),
    "group_expiry below zero": ({**POSTGRESQL, "group_expiry": -1}, "group_expiry"),
    "no capacity": ({**POSTGRESQL, "capacity": 0}, "capacity"),
    "capacity that is no number": ({**POSTGRESQL, "capacity": "many"}, "capacity"),
    "no capacity for a pattern": ({**POSTGRESQL, "channel_capacity": {"http.*": 0}}, "capacity"),
    "channel_capacity without patterns": ({**POSTGRESQL, "channel_capacity": 5}, "channel_capacity"),
    "one key instead of several": ({**POSTGRESQL, "symmetric_encryption_keys": "key"}, "symmetric_encryption_keys"),
    "key that is no text": ({**POSTGRESQL, "symmetric_encryption_keys": [5]}, "symmetric_encryption_keys"),
    "no send_timeout": ({**POSTGRESQL, "send_timeout": 0}, "send_timeout"),
}
