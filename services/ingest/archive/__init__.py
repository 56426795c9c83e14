"""The archive: the log as Parquet files by project, date and hour of event time, each event once."""

from services.ingest.archive.archiver import Archive, ArchivePolicy
from services.ingest.archive.compaction import CompactionPolicy
from services.ingest.archive.files import ArchiveFile, read_file
from services.ingest.archive.index import MIGRATIONS

__all__ = ["MIGRATIONS", "Archive", "ArchiveFile", "ArchivePolicy", "CompactionPolicy", "read_file"]
