"""Settings of a small project; its databases come from the environment."""

import json
import os

SECRET_KEY = "a secret for tests alone"
USE_TZ = True
INSTALLED_APPS = ["pgchannels.django"]
ROOT_URLCONF = "urls"
ASGI_APPLICATION = "asgi.application"
DATABASES = json.loads(os.environ["PROJECT_DATABASES"])
DATABASE_ROUTERS = list(filter(None, [os.environ.get("PROJECT_ROUTER")]))
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "pgchannels.django.PostgresChannelLayer",
        "CONFIG": {"database": os.environ.get("PROJECT_ALIAS", "default")},
        "TEST_CONFIG": {"database": os.environ.get("PROJECT_ALIAS", "default"), "prefix": "tests"},
    },
}
