"""Models outside the federation: their form, files, and other libraries' shapes."""
