"""`python -m services.ingest`: serves, with settings from the environment variables INKLING_INGEST_*."""

import os
import sys

from services.ingest.app import main
from services.ingest.settings import IngestSettings
from services.runtime.server import run
from services.runtime.settings import SettingsError

if __name__ == "__main__":
    try:
        settings = IngestSettings.load("INKLING_INGEST", os.environ)
    except SettingsError as error:
        sys.exit(str(error))
    run(main(settings), settings)
