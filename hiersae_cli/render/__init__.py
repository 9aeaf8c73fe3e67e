"""What is only shown or handed to others: tables, plots, HTML and tree exports that nothing here reads back."""
