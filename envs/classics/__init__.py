"""classics"""
