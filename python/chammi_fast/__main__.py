"""``python -m chammi_fast``."""

from chammi_fast.cli import main

main()
