"""Erasing a subject from everything that ingest holds: the log, the archive, the dead letters."""

from services.ingest.erasure.eraser import Eraser
from services.ingest.erasure.subject import Subject

__all__ = ["Eraser", "Subject"]
