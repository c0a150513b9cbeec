"""`python -m ovfast` is the command `ovfast`."""

from __future__ import annotations

from ovfast.cli.main import main

if __name__ == "__main__":
    main()
