"""The toy service as `second`."""

from tests.client.toy import main

if __name__ == "__main__":
    main("INKLING_SECOND_")
