"""`python -m services.features`: serves, with settings from the environment variables INKLING_FEATURES_*."""

import os
import sys

from services.features.app import main
from services.features.settings import FeaturesSettings
from services.runtime.server import run
from services.runtime.settings import SettingsError

if __name__ == "__main__":
    try:
        settings = FeaturesSettings.load("INKLING_FEATURES", os.environ)
    except SettingsError as error:
        sys.exit(str(error))
    run(main(settings), settings)
