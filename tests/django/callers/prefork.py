# Two children of a fork, as workers with processes have them: before, and again after the parent has sent itself.
import multiprocessing
import os
import warnings

import django

django.setup()

from news.sending import send  # noqa: E402 (needs the apps)


def send_from_child(number):
    send([os.getpid(), number])


def send_from_two_children():
    with warnings.catch_warnings():
        # Python warns of every fork of a process with threads; that this one is safe is what is tested.
        warnings.simplefilter("ignore", DeprecationWarning)
        children = multiprocessing.get_context("fork").Pool(2)
    children.map(send_from_child, range(20), chunksize=1)
    children.close()
    children.join()


if __name__ == "__main__":
    send_from_two_children()
    send([os.getpid(), "parent"])
    send_from_two_children()
    send([os.getpid(), "parent again"])
