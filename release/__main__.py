"""``python -m release``: begins to load the program at once, then loads the command line itself, side by side."""

import gc
import sys

from release.language_host import begin

if __name__ == "__main__":
    begin(sys.argv[1:])

    # What is imported stays: to look for garbage in it would be a tenth of the work.
    gc.disable()
    from release.command_line import main

    gc.freeze()
    gc.enable()
    main()
