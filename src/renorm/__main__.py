"""``python -m renorm`` is the command line."""

from renorm.cli import main

raise SystemExit(main())
