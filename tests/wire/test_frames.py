"""The codec: fed byte by byte, in every split, oversize, garbage."""

from __future__ import annotations

import random
import struct
from contextlib import suppress
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soakd.wire.frames import (
    MAX_DATA_BYTES,
    MAX_FRAME_BYTES,
    Decoder,
    FrameError,
    Message,
    Notification,
    Request,
    Response,
    encode_notification,
    encode_request,
    encode_response,
)

MESSAGES: list[Message] = [
    Request(0, "hello", {"client": "t", "protocol": 1}),
    Request(2**32 - 1, "run.status", {}),
    Response(1, None, {"id": "r7", "rounds": [1, 2.5, None, True, b"\x00"]}),
    Response(2, {"code": "refused", "message": "no", "details": {}}, None),
    Notification("run.log", {"seq": 1, "data": b"x" * 300}),
]


def encode(message: Message) -> bytes:
    """Return the frame of any message."""
    match message:
        case Request():
            return encode_request(message.id, message.method, message.params)
        case Response():
            return encode_response(message.id, message.error, message.result)
        case Notification():
            return encode_notification(message.method, message.params)


def pack(value: object) -> bytes:
    """Return raw MessagePack, right or wrong."""
    data: bytes = msgpack.packb(value, use_bin_type=True)
    return data


def feed_pieces(decoder: Decoder, data: bytes, step: int) -> list[Message]:
    """Feed the data in pieces of `step` bytes."""
    messages: list[Message] = []
    for start in range(0, len(data), step):
        messages += decoder.feed(data[start : start + step])
    return messages


def test_messages_survive_any_single_split() -> None:
    """Two pieces, cut anywhere, give the same messages of the same types."""
    data = b"".join(map(encode, MESSAGES))
    for cut in range(len(data) + 1):
        decoder = Decoder()
        got = decoder.feed(data[:cut]) + decoder.feed(data[cut:])
        assert got == MESSAGES
        assert [type(message) for message in got] == [type(message) for message in MESSAGES]
        assert decoder.pending_bytes == 0


def test_messages_survive_byte_by_byte_feeding() -> None:
    """The smallest pieces work, and pending bytes count up to each frame's end."""
    decoder = Decoder()
    frame = encode(MESSAGES[0])
    for index in range(len(frame) - 1):
        assert decoder.feed(frame[index : index + 1]) == []
        assert decoder.pending_bytes == index + 1
    assert decoder.feed(frame[-1:]) == [MESSAGES[0]]


def test_request_has_the_public_messagepack_rpc_form() -> None:
    """The bytes are what the public specification says, so that other clients can talk to us."""
    assert encode_request(1, "hello", {}) == bytes.fromhex("940001a568656c6c6f9180")
    assert encode_response(1, None, {}) == bytes.fromhex("940101c080")
    assert encode_notification("bye", {}) == bytes.fromhex("9302a36279659180")


def test_empty_params_array_means_no_parameters() -> None:
    """Foreign clients send [] where a method takes nothing."""
    assert Decoder().feed(pack([0, 1, "daemon.info", []])) == [Request(1, "daemon.info", {})]


def test_positional_params_are_a_problem_of_the_call_not_of_the_frame() -> None:
    """They are MessagePack-RPC: pynvim opens with such a notification, its method in bytes."""
    request, note = Decoder().feed(pack([0, 1, "m", [1, 2]]) + pack([2, b"n", [{}, {}]]))
    assert isinstance(request, Request)
    assert isinstance(note, Notification)
    assert (request.params, note.params, note.method) == ({}, {}, "n")
    assert request.problem == "params must be an array with one map, got 2 positional"
    assert note.problem is not None


def test_frame_of_full_size_passes_and_one_byte_more_does_not() -> None:
    """The limit is on the frame, also when it arrives together with the next one."""
    limit = 4096
    fits = pack([2, "m", [{"a": b"x" * (limit - 12)}]])
    fits = pack([2, "m", [{"a": b"x" * (limit - 12 + limit - len(fits))}]])
    assert len(fits) == limit
    decoder = Decoder(limit)
    assert len(decoder.feed(fits + fits + fits[:10])) == 2
    with pytest.raises(FrameError, match="exceed the limit 4096"):
        Decoder(limit).feed(pack([2, "m", [{"a": [b"x" * 2000, b"x" * 2100]}]]))


def test_incomplete_frame_over_the_limit_is_refused_before_it_ends() -> None:
    """A frame that only grows does not gather memory until its end."""
    decoder = Decoder(4096)
    endless = b"\x93\x02\xa1m\x91\x81\xa1a\xdc\x0f\xff" + b"\xc4\x10" + b"x" * 16
    decoder.feed(endless)
    with pytest.raises(FrameError, match="exceed the limit"):
        feed_pieces(decoder, (b"\xc4\x10" + b"x" * 16) * 300, 18)


def test_a_header_that_promises_gigabytes_waits_at_most_for_one_frame() -> None:
    """A string of 4 GB is only a header at first; the buffer limit ends it."""
    decoder = Decoder()
    assert decoder.feed(b"\xdb\xff\xff\xff\xff") == []
    with pytest.raises(FrameError):
        feed_pieces(decoder, b"x" * 65536 * 40, 65536)


GARBAGE: dict[str, bytes] = {
    "not an array": pack({"a": 1}),
    "an integer": b"\x01",
    "empty array": pack([]),
    "boolean type": pack([True, 1, "m", [{}]]),
    "unknown type": pack([3, 1, "m", [{}]]),
    "too short": pack([0, 1, "m"]),
    "too long": pack([2, "m", [{}], 1]),
    "boolean id": pack([0, True, "m", [{}]]),
    "negative id": pack([0, -1, "m", [{}]]),
    "id of 33 bits": pack([0, 2**32, "m", [{}]]),
    "method is a number": pack([0, 1, 5, [{}]]),
    "method is empty": pack([0, 1, "", [{}]]),
    "method is endless": pack([0, 1, "m" * 65, [{}]]),
    "params are a map": pack([0, 1, "m", {}]),
    "method is no ASCII": pack([0, 1, b"\xff", [{}]]),
    "error is a text": pack([1, 1, "no", None]),
    "error without code": pack([1, 1, {"message": "x"}, None]),
    "error without message": pack([1, 1, {"code": "x"}, None]),
    "integer key": pack([2, "m", [{1: 2}]]),
    "bytes key": pack([2, "m", [{b"a": 2}]]),
    "not a number": pack([2, "m", [{"a": float("nan")}]]),
    "infinite": pack([2, "m", [{"a": [float("-inf")]}]]),
    "integer of 64 bits": pack([2, "m", [{"a": 2**63}]]),
    "extension type": b"\x93\x02\xa1m\x91\x81\xa1a\xd4\x05\x00",
    "timestamp": b"\x93\x02\xa1m\x91\x81\xa1a\xd6\xff\x00\x00\x00\x00",
    "bad UTF-8": b"\x93\x02\xa1\xff\x91\x80",
    "array of 2^32-1": b"\xdd\xff\xff\xff\xff",
    "map of 2^32-1": b"\xdf\xff\xff\xff\xff",
    "nested 17 deep": b"\x93\x02\xa1m\x91\x81\xa1a" + b"\x91" * 15 + b"\xc0",
    "nested 2000 deep": b"\x93\x02\xa1m\x91\x81\xa1a" + b"\x91" * 2000 + b"\xc0",
    "never used byte": b"\x93\x02\xa1m\x91\x81\xa1a\xc1",
}


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_ends_the_connection(data: bytes) -> None:
    """Whatever is not a message of ours is a FrameError, whole and in pieces of one byte."""
    with pytest.raises(FrameError):
        Decoder().feed(data)
    with pytest.raises(FrameError):
        feed_pieces(Decoder(), data, 1)


def test_deepest_allowed_nesting_passes() -> None:
    """The limit of depth is exact: what is one deeper stands in the garbage."""
    data = b"\x93\x02\xa1m\x91\x81\xa1a" + b"\x91" * 13 + b"\xc0"
    assert len(Decoder().feed(data)) == 1


def test_many_values_in_few_bytes_are_refused() -> None:
    """A frame of empty maps would take forty times its size in memory to go on with."""
    rows = b"".join(b"\xdc\x0f\xa0" + b"\x80" * 4000 for _ in range(100))
    with pytest.raises(FrameError, match="more than 50000 values"):
        Decoder().feed(b"\x94\x00\x01\xa1m\x91\x81\xa1a\xdc\x00\x64" + rows)


def test_malformed_request_names_its_id_so_that_it_can_be_answered() -> None:
    """A foreign client's author should see what is wrong instead of a closed connection only."""
    for bad in ([0, 9, "m", 1], [0, 9, "", [{}]], [0, 9, "m", [{"a": 2**63}]]):
        with pytest.raises(FrameError) as caught:
            Decoder().feed(pack(bad))
        assert caught.value.request_id == 9


UNSENDABLE: dict[str, Any] = {
    "lone surrogate": "\udcff",
    "a set": {1},
    "too large an integer": 2**70,
    "too long": "x" * MAX_FRAME_BYTES,
}


@pytest.mark.parametrize("value", UNSENDABLE.values(), ids=UNSENDABLE.keys())
def test_what_cannot_be_sent_is_a_frame_error(value: object) -> None:
    """The sender learns it before a byte has gone out."""
    with pytest.raises(FrameError, match="cannot encode frame"):
        encode_notification("m", {"a": value})


def test_a_data_piece_of_full_size_passes_the_decoder() -> None:
    """The longest piece of a bundle fits into what a decoder takes."""
    frame = encode_notification("run.chunk", {"seq": 1, "data": b"x" * MAX_DATA_BYTES})
    assert len(Decoder().feed(frame)) == 1


@given(st.binary(max_size=400), st.integers(1, 40))
@settings(max_examples=300, deadline=None)
def test_any_bytes_give_messages_or_a_frame_error(data: bytes, step: int) -> None:
    """No input raises anything else, however it is cut."""
    decoder = Decoder()
    try:
        feed_pieces(decoder, data, step)
    except FrameError:
        return
    assert decoder.pending_bytes <= len(data)


def test_damaged_frames_never_raise_anything_else() -> None:
    """Every single-byte damage of a good frame is a message or a FrameError."""
    rng = random.Random(7)
    frame = bytearray(b"".join(map(encode, MESSAGES)))
    for place in range(len(frame)):
        damaged = bytearray(frame)
        damaged[place] = rng.randrange(256)
        with suppress(FrameError):
            Decoder().feed(bytes(damaged))


def test_large_feeds_are_taken_in_pieces() -> None:
    """One call may bring more than the unpacker's buffer holds."""
    frame = encode_notification("run.log", {"seq": 1, "data": b"x" * 100_000})
    assert len(Decoder().feed(frame * 30)) == 30
    assert struct.unpack(">B", frame[:1]) == (0x93,)


def test_messages_are_equal_by_kind_and_fields_and_show_them() -> None:
    """What tests compare and logs show."""
    request = Request(1, "hello", {"client": "t"})
    assert request == Request(1, "hello", {"client": "t"})
    assert request != Request(2, "hello", {"client": "t"})
    assert request != Notification("hello", {"client": "t"})
    assert request != "hello"
    assert repr(request) == "Request(1, 'hello', {'client': 't'}, None)"
