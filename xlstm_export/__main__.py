"""``python -m xlstm_export``: the command line."""

from xlstm_export_cli.main import main

main()
