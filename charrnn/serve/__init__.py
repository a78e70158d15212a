"""Models behind OpenAI's completions API: rows that requests share, what a body may hold, answers, safety."""
