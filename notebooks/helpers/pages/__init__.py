"""What lives in a page without a kernel: templates in HTML and plain JavaScript, filled with numbers of a run."""
