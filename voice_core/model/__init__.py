"""The T5Gemma-TTS network: its configuration, its modules, its checkpoint files, its tokenizer."""
