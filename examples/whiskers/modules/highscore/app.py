"""`/highscore`: GET answers the ten best games, POST `{"ulid", "name"}` enters a game under a name of three letters.

The score is never taken from the player: it is read from Redis, where `morsel` counted it.
"""

import json
import re

from componentize_py_types import Err, Ok
from wit_world import exports
from wit_world.imports import environment, types
from wit_world.imports.redis import (
    Connection,
    Error_Other,
    RedisParameter_Binary,
    RedisParameter_Int64,
    RedisResult_Binary,
)

HIGHSCORES = "whiskers:highscores"
NAMES = "whiskers:highscores:names"
TOP = 10
# An entry is two short strings; whoever sends more is not playing.
LARGEST_BODY = 1024

ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
NAME = re.compile(r"[A-Z]{3}")


class Refusal(Exception):
    """What is answered to a request that cannot be served."""

    def __init__(self, status: int, why: str):
        super().__init__(why)
        self.status = status


class Redis:
    """The commands of Redis, with plain values in and out."""

    def __init__(self) -> None:
        address = dict(environment.get_environment()).get("REDIS_ADDRESS", "redis://redis:6379")
        self.connection = Connection.open(address)

    def __call__(self, command: str, *words: str | int) -> list[str | int | None]:
        parameters = [
            RedisParameter_Int64(word) if isinstance(word, int) else RedisParameter_Binary(word.encode())
            for word in words
        ]
        return [
            value.value.decode() if isinstance(value, RedisResult_Binary) else getattr(value, "value", None)
            for value in self.connection.execute(command, parameters)
        ]


def best(redis_: Redis) -> dict:
    flat = redis_("ZREVRANGE", HIGHSCORES, 0, TOP - 1, "WITHSCORES")
    games = [(str(game), int(score)) for game, score in zip(flat[::2], flat[1::2])]
    names = redis_("HMGET", NAMES, *(game for game, _ in games)) if games else []
    return {"scores": [{"ulid": game, "name": name, "score": score} for (game, score), name in zip(games, names)]}


def enter(redis_: Redis, body: bytes) -> dict:
    try:
        entry = json.loads(body)
        game, name = entry["ulid"].upper(), entry["name"].upper()
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Refusal(400, 'send {"ulid": the game, "name": three letters}') from None
    if not ULID.fullmatch(game):
        raise Refusal(400, "that is not the ulid of a game: ask /session for one")
    if not NAME.fullmatch(name):
        raise Refusal(400, "a name has three letters, A to Z")
    score = sum(int(count) for count in redis_("HVALS", f"whiskers:score:{game}"))
    if score == 0:
        raise Refusal(404, "this game has no points yet")
    # The first name stands: the table has one line a game.
    if redis_("HSETNX", NAMES, game, name) == [0]:
        raise Refusal(409, "this game is in the table already")
    redis_("ZADD", HIGHSCORES, score, game)
    rank = redis_("ZREVRANK", HIGHSCORES, game)[0]
    return {"score": score, "rank": rank + 1, **best(redis_)}


def answer(request: types.IncomingRequest) -> tuple[int, dict, dict[str, str]]:
    match request.method():
        case types.Method_Get():
            return 200, best(Redis()), {}
        case types.Method_Post():
            return 200, enter(Redis(), read(request)), {}
        case _:
            return 405, {"error": "use GET, POST"}, {"allow": "GET, POST"}


def read(request: types.IncomingRequest) -> bytes:
    body = b""
    with request.consume() as incoming, incoming.stream() as stream:
        while len(body) <= LARGEST_BODY:
            try:
                body += stream.blocking_read(LARGEST_BODY + 1)
            except Err as end:
                if "Closed" in type(end.value).__name__:
                    return body
                raise Refusal(400, "the request broke off") from None
    raise Refusal(413, f"an entry has at most {LARGEST_BODY} bytes")


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request: types.IncomingRequest, response_out: types.ResponseOutparam) -> None:
        try:
            status, body, headers = answer(request)
        except Refusal as refusal:
            status, body, headers = refusal.status, {"error": str(refusal)}, {}
        except Err as error:
            why = error.value.value if isinstance(error.value, Error_Other) else type(error.value).__name__
            print(f"/highscore: {why}")
            status, body, headers = 503, {"error": f"the table cannot be read, Redis says: {why}"}, {}
        reply(response_out, status, json.dumps(body).encode(), headers)


def reply(response_out: types.ResponseOutparam, status: int, body: bytes, headers: dict[str, str]) -> None:
    headers = {"content-type": "application/json", "cache-control": "no-store", **headers}
    response = types.OutgoingResponse(types.Fields.from_list([(name, text.encode()) for name, text in headers.items()]))
    response.set_status_code(status)
    outgoing = response.body()
    types.ResponseOutparam.set(response_out, Ok(response))
    with outgoing.write() as stream:
        for at in range(0, len(body), 4096):
            stream.blocking_write_and_flush(body[at : at + 4096])
    types.OutgoingBody.finish(outgoing, None)
