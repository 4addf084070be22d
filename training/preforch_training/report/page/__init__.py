"""`index.html`: the report as one page that loads nothing."""
