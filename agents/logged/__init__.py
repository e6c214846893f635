"""logged"""
