"""The command ``hiersae`` as a process, also as ``python -m hiersae_cli``."""

try:
    import signal
except KeyboardInterrupt:
    raise SystemExit(130) from None

# Until ``main`` has words for it, Ctrl-C ends the process: Python would print a traceback. A command that was started
# in the background ignores it, and goes on doing so.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from hiersae_cli.cli import main

if __name__ == "__main__":
    main()
