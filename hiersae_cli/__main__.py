"""``python -m hiersae_cli``, for where the installed command is not on the path."""

from hiersae_cli.cli import main

if __name__ == "__main__":
    main()
