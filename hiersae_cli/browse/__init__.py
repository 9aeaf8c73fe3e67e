"""What the dashboard's index answers, as plain values: no HTML here, so that pages, studies and scripts share it."""
