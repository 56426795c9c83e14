"""Erasing a subject from everything: ingest first, then what features has made of the log."""

from services.features.erasure.eraser import FeaturesEraser, LogErasures, NoLogErasures
from services.features.erasure.forgetting import Forgets
from services.features.erasure.insights_client import Elsewhere, InsightErasures

__all__ = ["Elsewhere", "FeaturesEraser", "Forgets", "InsightErasures", "LogErasures", "NoLogErasures"]
