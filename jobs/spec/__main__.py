"""`python -m jobs.spec` writes the reference page of the spec and its JSON Schema."""

from jobs.spec.reference import PAGE, SCHEMA, render_page, render_schema

if __name__ == "__main__":
    PAGE.write_text(render_page())
    SCHEMA.write_text(render_schema())
