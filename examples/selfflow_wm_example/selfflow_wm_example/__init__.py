"""Parts for selfflow-wm that live in a package of their own; pyproject.toml names them."""
