"""What is done with a program before it runs: parsed, filtered, brought into a form, compared."""
