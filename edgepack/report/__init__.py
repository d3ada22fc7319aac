"""Results for people and for programs: text, JSON, JUnit, Markdown, HTML."""
