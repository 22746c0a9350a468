from __future__ import annotations

from collections.abc import Iterator

from soakd.simnode.commands import CAPACITY, CommandQueue
from soakd.simnode.exchange import Exchange, Request, Response, Stream, success
from soakd.simnode.loop import Loop

DONE = success({"queued": True})


class Client:
    """The far end of an exchange."""

    def __init__(self) -> None:
        self.answers: list[Response] = []
        request = Request("POST", "/", "", {}, b"", "127.0.0.1")
        self.exchange = Exchange(request, self)

    def respond(self, response: Response) -> None:
        self.answers.append(response)

    def proceed(self) -> None:
        pass

    def start_stream(self, content_type: str) -> Stream:
        raise AssertionError(content_type)

    def pour(self, pieces: Iterator[bytes], pause_s: float = 0.0) -> None:
        raise AssertionError(pieces)


def full_queue(loop: Loop, ran: list[int]) -> CommandQueue:
    """Return a queue without room whose commands note their number."""
    queue = CommandQueue(loop)
    for number in range(CAPACITY):
        queue.post(Client().exchange, lambda number=number: ran.append(number), DONE)  # type: ignore[misc]
    return queue


def test_a_post_is_answered_when_queued_and_runs_in_the_loop(loop: Loop) -> None:
    """200 at once, executed at step 13."""
    queue, client, ran = CommandQueue(loop), Client(), list[int]()
    queue.post(client.exchange, lambda: ran.append(1), DONE)
    assert (client.answers, ran) == ([DONE], [])
    queue.resume()
    assert ran == [1]


def test_a_running_loop_answers_at_once(loop: Loop) -> None:
    """Nothing is queued then."""
    queue, client = CommandQueue(loop), Client()
    queue.resume()
    queue.ask(client.exchange, lambda: DONE)
    assert client.answers == [DONE]


def test_whoever_waits_for_room_is_served_in_order(loop: Loop) -> None:
    """All 128 first, then the waiting ones, without those that left."""
    ran: list[int] = []
    queue = full_queue(loop, ran)
    waiting, gone = Client(), Client()
    queue.post(gone.exchange, lambda: ran.append(-1), DONE)
    queue.post(waiting.exchange, lambda: ran.append(CAPACITY), DONE)
    gone.exchange.abandon()
    assert waiting.answers == []
    queue.resume()
    assert ran == list(range(CAPACITY + 1))
    assert (waiting.answers, gone.answers) == ([DONE], [])


def test_a_question_to_a_paused_loop_is_answered_when_it_goes_on(loop: Loop) -> None:
    """If that is within five seconds."""
    queue, client = CommandQueue(loop), Client()
    queue.resume()
    queue.pause()
    queue.ask(client.exchange, lambda: DONE)
    assert client.answers == []
    queue.resume()
    assert client.answers == [DONE]


def test_the_first_answer_counts() -> None:
    """A later one is dropped, and the end is told once."""
    client, ends = Client(), list[int]()
    client.exchange.on_end(lambda: ends.append(1))
    client.exchange.answer(DONE)
    client.exchange.answer(DONE)
    client.exchange.abandon()
    client.exchange.on_end(lambda: ends.append(2))
    assert (client.answers, ends) == ([DONE], [1, 2])
