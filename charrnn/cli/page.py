"""The beginning of every page that shows a coloured text."""

HEAD = """<!doctype html>
<html><head><meta charset="utf-8"><title>{title}</title>
<style>
:root {{ color-scheme: light }}
body {{ max-width: 48rem; margin: 2rem auto; padding: 0 1rem; background: #fdfdfb; color: #1a1a1a }}
body {{ font: 1rem/1.7 Georgia, serif }}
p {{ color: #555 }}
pre {{ white-space: pre-wrap; overflow-wrap: anywhere; font: inherit }}
i {{ font-style: normal; border-radius: 2px }}
{styles}
</style></head>
"""
