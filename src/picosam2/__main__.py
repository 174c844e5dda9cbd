"""`python -m picosam2`: the command line, also for `torchrun -m picosam2 train`."""

from picosam2.cli.main import main

if __name__ == "__main__":
    main()
