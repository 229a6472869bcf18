"""``python -m emotion_app``: the command line."""

from emotion_app.cli import main

main()
