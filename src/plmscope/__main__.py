"""``python -m plmscope`` is the command ``plmscope``."""

from plmscope.cli import main_cli

if __name__ == "__main__":
    main_cli()
