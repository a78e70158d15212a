"""HTML, all of it: pages that need nothing else, and what a notebook shows. Templates, and one stylesheet."""
