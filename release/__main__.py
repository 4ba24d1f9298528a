"""``python -m release``: begins to load the program at once, then loads the command line itself, side by side."""

import sys

from release.language_host import begin

if __name__ == "__main__":
    begin(sys.argv[1:])

    from release.command_line import main

    main()
