"""What is said while a run trains: lines and a bar on stderr, or a picture in a notebook that changes."""
