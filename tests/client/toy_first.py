"""The toy service as `first`."""

from tests.client.toy import main

if __name__ == "__main__":
    main("INKLING_FIRST_")
