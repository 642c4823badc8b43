from django.db import models, transaction
from django.db.models.signals import post_save
from django.dispatch import receiver

from news.sending import send


class Article(models.Model):
    title = models.TextField()


@receiver(post_save, sender=Article)
def tell(instance, **kwargs):
    transaction.on_commit(lambda: send(instance.title))
