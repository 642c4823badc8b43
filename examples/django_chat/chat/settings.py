"""The settings of a chat that has no models; its only database is that of the channel layer."""

import os
import secrets

if not os.environ.get("PGCHANNELS_URL"):
    raise SystemExit("set PGCHANNELS_URL to a database, such as postgresql://user:password@localhost/chat")

HISTORY_SECONDS = 600

CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "pgchannels.django.PostgresChannelLayer",
        "CONFIG": {"url": os.environ["PGCHANNELS_URL"], "expiry": HISTORY_SECONDS, "on_gap": "chat.gap"},
    }
}
INSTALLED_APPS = ["daphne", "channels", "pgchannels.django"]

ROOT_URLCONF = "chat.urls"
ASGI_APPLICATION = "chat.asgi.application"
SECRET_KEY = secrets.token_urlsafe()  # nothing that is signed outlives the process
ALLOWED_HOSTS = ["*"]  # no accounts and no cookies: there is nothing that another site could misuse
USE_TZ = True
