"""How long the program takes, beside what people would type otherwise; `python -m bench`."""
