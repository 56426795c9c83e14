"""Erasing a subject from everything: ingest first, then what features has made of the log."""

from services.features.erasure.eraser import FeaturesEraser, LogErasures, NoLogErasures
from services.features.erasure.forgetting import Forgets

__all__ = ["FeaturesEraser", "Forgets", "LogErasures", "NoLogErasures"]
