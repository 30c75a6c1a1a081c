"""The page that tags sound in the browser, and the server for people who have Python: python -m web."""
