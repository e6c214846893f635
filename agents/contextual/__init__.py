"""contextual"""
