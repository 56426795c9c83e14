"""`python -m services.insights`: serves, with settings from the environment variables INKLING_INSIGHTS_*."""

import os
import sys

from services.insights.app import main
from services.insights.settings import InsightsSettings
from services.runtime.server import run
from services.runtime.settings import SettingsError

if __name__ == "__main__":
    try:
        settings = InsightsSettings.load("INKLING_INSIGHTS", os.environ)
    except SettingsError as error:
        sys.exit(str(error))
    run(main(settings), settings)
