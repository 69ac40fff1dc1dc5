"""What is on the disk: journal, spool, state directory. Knows no network."""
