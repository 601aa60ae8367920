"""Laws whose answers are known exactly: what models learn from, and what they are judged by."""
