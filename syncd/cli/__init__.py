"""The command line: argv, progress, what a person reads, exit codes. Refuses to decide anything about tasks."""
