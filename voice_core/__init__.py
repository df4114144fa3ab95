"""The product without a server: text, tensors, audio. Knows neither Ray nor HTTP."""
