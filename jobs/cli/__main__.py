"""`python -m jobs.cli` writes the reference page of the verbs."""

from jobs.cli.reference import PAGE, render_page

if __name__ == "__main__":
    PAGE.write_text(render_page())
