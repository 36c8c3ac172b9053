"""JOBS: searches, their records, comparisons and replays; the command line."""
