from jaxcl.cli import main

raise SystemExit(main())
