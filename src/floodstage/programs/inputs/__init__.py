"""Files of tasks and of programs become records. Nothing here runs what it reads."""
