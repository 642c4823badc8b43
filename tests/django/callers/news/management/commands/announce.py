from django.core.management import BaseCommand

from news.sending import send


class Command(BaseCommand):
    def add_arguments(self, parser):
        parser.add_argument("texts", nargs="+")

    def handle(self, *, texts, **options):
        for text in texts:
            send(text)
