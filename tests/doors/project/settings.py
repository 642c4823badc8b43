"""Settings of a project with rooms; its database comes from the environment as a URL."""

import os

SECRET_KEY = "a secret for tests alone"
ALLOWED_HOSTS = ["*"]
USE_TZ = True
ROOT_URLCONF = "asgi"
ASGI_APPLICATION = "asgi.application"
INSTALLED_APPS = ["daphne", "pgchannels.django"]
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "pgchannels.django.PostgresChannelLayer",
        "CONFIG": {"url": os.environ["PGCHANNELS_URL"]},
    },
}
