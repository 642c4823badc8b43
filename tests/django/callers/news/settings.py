# A project that sends to one group from every place that Django has.
import json
import os

SECRET_KEY = "a secret for tests alone"
ALLOWED_HOSTS = ["*"]
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
ROOT_URLCONF = "news.urls"
ASGI_APPLICATION = "news.asgi.application"
WSGI_APPLICATION = "news.wsgi.application"
INSTALLED_APPS = ["channels", "pgchannels.django", "news"]
DATABASES = {"default": json.loads(os.environ["PROJECT_DATABASE"])}
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "pgchannels.django.PostgresChannelLayer",
        "CONFIG": {"database": "default"},
    },
}
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "loggers": {"asyncio": {"level": "ERROR"}},  # in `-X dev` it warns of every pause of a busy machine
}
