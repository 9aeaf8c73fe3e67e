"""What people look at: the pages of the dashboard, and the index that answers them."""
