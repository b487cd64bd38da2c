"""Questions over HTTP: our own API, OpenAI's form, and a client. `make_app` in `app` makes the application."""
