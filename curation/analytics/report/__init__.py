"""What a version is made of, for people: one data structure, shown as an HTML page, as Markdown or as JSON.

report.py       which sections there are
contents.py     what a section consists of: tables, plots, pictures
questions.py    asks the .sql files, one per question
filters.py      the steps that drop rows; thresholds.py: the numbers in them
the others      a section each
plots.py        plots by Altair; page.py: the three formats, with page.html, page.css, page.js and page.md
"""
