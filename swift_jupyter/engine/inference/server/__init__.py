"""A server for one model that speaks OpenAI's protocol."""
