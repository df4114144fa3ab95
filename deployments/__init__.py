"""The Ray Serve application around voice_core: one deployment class a file."""
