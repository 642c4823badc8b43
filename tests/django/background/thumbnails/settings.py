# Background work as Django Channels describes it under "Worker and Background Tasks".
import os

SECRET_KEY = "a secret for tests alone"
ALLOWED_HOSTS = ["*"]
USE_TZ = True
ROOT_URLCONF = "thumbnails.urls"
ASGI_APPLICATION = "thumbnails.asgi.application"
INSTALLED_APPS = ["channels", "pgchannels.django"]
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "pgchannels.django.PostgresChannelLayer",
        "CONFIG": {"url": os.environ["PGCHANNELS_URL"]},
    },
}
