"""Text: built-in corpora and what reads them."""
