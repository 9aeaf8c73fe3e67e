"""The pages of the dashboard as HTML, their server, and the folder of pages."""
