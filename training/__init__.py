"""Makes the embedded voice: its text, its teacher's speech, its codec, its speaker, and the judge of what it says."""
