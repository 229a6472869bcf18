"""The page (Gradio): one module for each tab, the shell that they share, and HTML drawn from plain data."""
