"""What the dashboard shows, as plain values from the index: no HTML, so that pages, studies and scripts share it."""
