"""Does one long list of file operations in a directory and prints what a program sees.

    ops.py prepare DIR    as root: directories and files of several owners, below DIR
    ops.py run DIR        as anyone: every case, each in a fresh subdirectory of DIR
    ops.py tree DIR       all that is below DIR now

The transcript names nothing that differs from one directory to another (no inode numbers, no
clock readings, no paths above DIR), so two runs by the same user on two directories that behave
alike print the same text. Each case starts with a line `== NAME`; a result is printed as it is,
an error as the name of its errno. The cases are in the `cases_*.py` files beside this one, what
they are written with is in `transcript.py`.
"""

import sys

import cases_attributes
import cases_data
import cases_descriptors
import cases_directories
import cases_names
import cases_programs
import cases_users
import cases_xattrs
import transcript

MODULES = [
    cases_names,
    cases_attributes,
    cases_data,
    cases_descriptors,
    cases_directories,
    cases_xattrs,
    cases_programs,
    cases_users,
]


def main():
    """Runs the wanted part."""
    what = sys.argv[1:2]
    if what == ["prepare"] and len(sys.argv) == 3:
        cases_users.prepare(sys.argv[2])
    elif what == ["run"] and len(sys.argv) == 3:
        transcript.run_all(sys.argv[2])
    elif what == ["tree"] and len(sys.argv) == 3:
        transcript.print_tree(sys.argv[2])
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
