"""The settings of a small shop: its models and the channel layer share one database."""

import os
import secrets

from psycopg.conninfo import conninfo_to_dict

if not os.environ.get("PGCHANNELS_URL"):
    raise SystemExit("set PGCHANNELS_URL to a database, such as postgresql://user:password@localhost/shop")

server = conninfo_to_dict(os.environ["PGCHANNELS_URL"])
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": server["dbname"],
        "USER": server.get("user", ""),
        "PASSWORD": server.get("password", ""),
        "HOST": server.get("host", ""),
        "PORT": server.get("port", ""),
    }
}
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "pgchannels.django.PostgresChannelLayer",
        "CONFIG": {"database": "default"},
    }
}
INSTALLED_APPS = ["daphne", "pgchannels.django", "shop"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

ROOT_URLCONF = "shop.urls"
ASGI_APPLICATION = "shop.asgi.application"
SECRET_KEY = secrets.token_urlsafe()  # nothing that is signed outlives the process
ALLOWED_HOSTS = ["*"]  # no accounts and no cookies: there is nothing that another site could misuse
USE_TZ = True
