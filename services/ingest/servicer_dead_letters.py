"""DeadLetterService: converts requests, calls the dead letters, formats what they say."""

from typing import Any

import grpc.aio

from inkling.ingest.v1 import dead_letter_service_pb2 as messages
from inkling.ingest.v1 import dead_letter_service_pb2_grpc
from services.ingest.dead_letters import DeadLetters
from services.ingest.messages import letter_message, reason_name, rejected_message, resource_id
from services.ingest.replay import Replayer
from services.runtime.auth import Role, current_caller
from services.runtime.errors import InvalidArgument
from services.runtime.paging import PageTokens, page_size

# The names of the methods are the protocol's.

SERVICE_NAME = "inkling.ingest.v1.DeadLetterService"
POLICIES = {
    f"/{SERVICE_NAME}/{method}": frozenset({Role.OPERATE})
    for method in ("ListDeadLetters", "GetDeadLetter", "ReplayDeadLetters", "PurgeDeadLetters")
}
_COLLECTION = "deadLetters"
_MOST = 1_000

Context = grpc.aio.ServicerContext[Any, Any]


class DeadLetterServicer(dead_letter_service_pb2_grpc.DeadLetterServiceServicer):
    """Keeps what was refused."""

    def __init__(self, dead_letters: DeadLetters, replayer: Replayer, tokens: PageTokens) -> None:
        self._dead_letters = dead_letters
        self._replayer = replayer
        self._tokens = tokens

    async def ListDeadLetters(
        self, request: messages.ListDeadLettersRequest, context: Context
    ) -> messages.ListDeadLettersResponse:
        """Lists them, newest first."""
        project = current_caller().project
        size = page_size(request.page_size)
        reason = reason_name(request.reason)
        scope = (project, "ListDeadLetters", reason or "")
        cursor = self._tokens.verify(request.page_token, *scope)
        before = (int(cursor["time"] or 0), str(cursor["id"])) if cursor else None
        found = await self._dead_letters.page(project, size + 1, before, reason)
        token = ""
        if len(found) > size:
            last = found[size - 1]
            token = self._tokens.sign({"time": last.create_time_us, "id": last.letter_id}, *scope)
        page = [letter_message(letter) for letter in found[:size]]
        return messages.ListDeadLettersResponse(dead_letters=page, next_page_token=token)

    async def GetDeadLetter(self, request: messages.GetDeadLetterRequest, context: Context) -> messages.DeadLetter:
        """Reads one, with its payload."""
        letter_id = resource_id(request.name, _COLLECTION)
        found = await self._dead_letters.get(current_caller().project, [letter_id])
        return letter_message(found[letter_id])

    async def ReplayDeadLetters(
        self, request: messages.ReplayDeadLettersRequest, context: Context
    ) -> messages.ReplayDeadLettersResponse:
        """Sends them again."""
        project = current_caller().project
        if len(request.names) > _MOST or len(request.repairs) > _MOST:
            raise InvalidArgument("at most 1,000 names and 1,000 repairs a call", reason="OUT_OF_RANGE")
        letter_ids = [resource_id(name, _COLLECTION) for name in request.names]
        repairs = {resource_id(name, _COLLECTION): event.SerializeToString() for name, event in request.repairs.items()}
        reason = reason_name(request.reason)
        if not (letter_ids or repairs or reason):
            raise InvalidArgument("say which dead letters: names, repairs or a reason", reason="OUT_OF_RANGE")
        if reason is not None:
            found = await self._dead_letters.page(project, _MOST, None, reason)
            letter_ids += [letter.letter_id for letter in found]
        letter_ids = [letter_id for letter_id in dict.fromkeys(letter_ids) if letter_id not in repairs]
        replayed = await self._replayer.replay(project, letter_ids, repairs)
        return messages.ReplayDeadLettersResponse(
            accepted_count=replayed.accepted,
            rejected=[rejected_message(*each) for each in replayed.rejected],
            position=replayed.position,
        )

    async def PurgeDeadLetters(
        self, request: messages.PurgeDeadLettersRequest, context: Context
    ) -> messages.PurgeDeadLettersResponse:
        """Deletes them for good."""
        project = current_caller().project
        if len(request.names) > _MOST:
            raise InvalidArgument("at most 1,000 names a call", reason="OUT_OF_RANGE")
        before = request.HasField("before_time")
        if not (request.names or before or request.all):
            raise InvalidArgument("say which dead letters: names, before_time or all", reason="OUT_OF_RANGE")
        letter_ids = [resource_id(name, _COLLECTION) for name in request.names]
        purged = await self._dead_letters.delete(project, letter_ids) if letter_ids else 0
        if before or request.all:
            before_us = None if request.all else request.before_time.ToMicroseconds()
            purged += await self._dead_letters.delete_before(project, before_us)
        return messages.PurgeDeadLettersResponse(purged_count=purged)
