"""``python -m gcpod`` and the ``gcpod`` command."""

from gcpod.cli.main import main

if __name__ == "__main__":
    main()
