"""What was done in an example and what came of it, for whoever must explain a failure.

The same steps need not fail again: what is told about the first time may be all that there is.
"""

import asyncio
import inspect
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final

from pgchannels import Gap, MessageLayer, Position
from tests.faults.machine.model import Model, Reception
from tests.support.roads import node_of

_MOST_CHARACTERS: Final = 160


class Trace:
    """The steps of an example, a line for each: when it began and how long it took, the model's moments in it."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._began = time.monotonic()
        self._lines: list[str] = []

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Take a step, and note how it ended."""
        began, moment, outcome = time.monotonic(), self._model.moment, "done"
        try:
            yield
        except BaseException as error:
            outcome = _short(repr(error))
            raise
        finally:
            took = time.monotonic() - began
            moments = f"moments {moment + 1} to {self._model.moment}"
            self._lines.append(f"{began - self._began:7.2f} s +{took:.2f}, {moments}: {name}: {outcome}")

    def __str__(self) -> str:
        return "\n".join(["steps:", *self._lines])


def step_name(work: Coroutine[Any, Any, object]) -> str:
    """A verb that has not begun yet, with its arguments."""
    assert inspect.iscoroutine(work)
    arguments = [f"{name}={_text(value)}" for name, value in inspect.getcoroutinelocals(work).items() if name != "self"]
    return f"{work.__name__}({', '.join(arguments)})"


def account(model: Model, reception: Reception) -> str:
    """All that concerns one receiver, by the model's moments."""
    events = [(send.started, f"{send}") for send in model.to(reception.target)]
    events += [(moment, "crash") for moment in model.crashes]
    events += [(moment, "all expires") for moment, target in model.expiries if target == reception.target]
    for other in model.of(reception.target):
        who = "it" if other is reception else other.name
        events += [] if other.began is None else [(other.began, f"{who} begins")]
        events += [
            (moment, f"{who} {f'is told {event}' if isinstance(event, Gap) else f'gets #{event.label}'}")
            for moment, event in zip(other.moments, other.events, strict=True)
        ]
    awaited = ", ".join(f"#{send.label}" for send in model.awaited(reception))
    since = f"since {reception.since}, " if reception.since else ""
    state = "has ended" if reception.has_ended else f"awaits {awaited or 'nothing'}"
    lines = [f"{moment:5}: {text}" for moment, text in sorted(events, key=lambda event: event[0])]
    return "\n".join([f"{reception.name}: {since}last {reception.last_position}, {state}", *lines])


def tasks() -> str:
    """What each task of the loop waits for."""
    return "\n".join(["tasks:", *sorted(f"{task.get_name()}: {_place(task)}" for task in asyncio.all_tasks())])


def state_of(layer: MessageLayer) -> str:
    """What a node keeps back, and up to where it has delivered."""
    if layer._process.here() is None:
        return "closed"
    node = node_of(layer)
    catch_up, router = node.receiver.catch_up, node.receiver.router
    positions = {address: str(Position.from_id(position)) for address, position in router.positions().items()}
    state = "live" if catch_up.is_live else f"reads {catch_up._is_all_to_read or catch_up._to_read}"
    return f"{len(catch_up._held)} held, {state}, {positions}, {node.receiver.queues._receivers}"


def _place(task: asyncio.Task[Any]) -> str:
    places = []
    waiting: Any = task.get_coro()
    while waiting is not None:
        frame = getattr(waiting, "cr_frame", None) or getattr(waiting, "ag_frame", None)
        if frame is not None:
            places.append(f"{frame.f_code.co_qualname}:{frame.f_lineno}")
        waiting = getattr(waiting, "cr_await", None) or getattr(waiting, "ag_await", None)
    return " > ".join(places)


def _text(value: object) -> str:
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list) else str(value)


def _short(text: str) -> str:
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}…"
