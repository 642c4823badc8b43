"""Settings of a small project; its databases come from the environment."""

import json
import os

SECRET_KEY = "a secret for tests alone"
USE_TZ = True
INSTALLED_APPS = os.environ.get("PROJECT_APPS", "pgchannels.django").split()
ROOT_URLCONF = "urls"
ASGI_APPLICATION = "asgi.application"
DATABASES = json.loads(os.environ["PROJECT_DATABASES"])
DATABASE_ROUTERS = list(filter(None, [os.environ.get("PROJECT_ROUTER")]))
CONFIG = {"database": os.environ.get("PROJECT_ALIAS", "default")}
LAYERS = json.loads(os.environ.get("PROJECT_LAYERS", "null")) or {
    "default": {"CONFIG": CONFIG, "TEST_CONFIG": CONFIG | {"prefix": "tests"}}
}
CHANNEL_LAYERS = {
    name: {"BACKEND": "pgchannels.django.PostgresChannelLayer", **layer} for name, layer in LAYERS.items()
}
