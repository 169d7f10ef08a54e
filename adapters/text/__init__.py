"""Texts to features: the text tower opened, prompts with learnt context, and what label sets share. No HTTP."""
